// The two questions that stand in front of the page: a key, and a command to copy.

import { curl, key } from "./api.js";
import { byId } from "./dom.js";

export async function showCurl(request) {
  byId("curl-text").textContent = curl(request);
  byId("curl-says").textContent = "";
  byId("curl").showModal();
  try {
    await navigator.clipboard.writeText(curl(request));
    byId("curl-says").textContent = "Copied.";
  } catch {
    // Only pages from this machine or over TLS may write to the clipboard.
    getSelection().selectAllChildren(byId("curl-text"));
    byId("curl-says").textContent = "Selected, to be copied.";
  }
}

export function askForKey() {
  const known = key.get();
  key.forget();
  byId("forget-key").hidden = true;
  byId("key-says").textContent = known ? "The server does not know this key." : "Its operator has given them out.";
  if (!byId("key").open) byId("key").showModal();
  byId("key-value").value = "";
  byId("key-value").focus();
}

export function start(again) {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key.set(byId("key-value").value.trim());
    byId("key").close();
    byId("forget-key").hidden = false;
    again();
  });
  // A hint closes as a tooltip does.
  const close = (but) => document.querySelectorAll(".hint[open]").forEach((hint) => (hint.open = hint === but));
  addEventListener("click", (event) => close(event.target.closest(".hint")));
  addEventListener("keydown", (event) => event.key === "Escape" && close(null));
  byId("forget-key").hidden = !key.get();
  byId("forget-key").addEventListener("click", () => {
    key.forget();
    location.reload();
  });
}
