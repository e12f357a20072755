// The form: who is asked about which candidates, in which context, and which model.

import { byId, h } from "./dom.js";
import { MOST_CANDIDATES, fromRequest, ids } from "./view.js";

const option = (value, text, selected) => h("option", { value, selected }, text);

export function start({ onAsk, onAnother, onDraw }) {
  const form = byId("question");
  let offered = ""; // what the lists to choose from were made of

  function context() {
    const inputs = [...byId("context").querySelectorAll("input")].filter((input) => input.value.trim());
    return Object.fromEntries(inputs.map((input) => [input.dataset.name, input.value.trim()]));
  }

  function read() {
    const whole = fromRequest(byId("items").value);
    if (whole) return { ...whole, user: whole.user || byId("user").value, versus: byId("versus").value };
    const items = ids(byId("items").value);
    return { user: byId("user").value, items: items.slice(0, MOST_CANDIDATES), context: context(), model: byId("model").value, versus: byId("versus").value };
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    onAsk(read());
  });
  form.addEventListener("change", (event) => {
    if (event.target.matches("select, #context input, #user, #items")) onAsk(read());
  });
  byId("another").addEventListener("click", onAnother);
  byId("draw").addEventListener("click", () => onDraw(Number(byId("count").value)));

  function contextFields(names, view) {
    const known = [...byId("context").querySelectorAll("input")].map((input) => input.dataset.name);
    if (known.join() === names.join()) return;
    byId("context").replaceChildren(
      ...names.map((name) => h("div", { class: "field short" }, h("label", { for: `context-${name}` }, name), h("input", { id: `context-${name}`, "data-name": name, inputmode: "numeric", pattern: "-?[0-9]*", placeholder: "unknown", autocomplete: "off", title: "A field of the context; left empty it counts as unknown", value: view.context[name] ?? "" }))),
    );
  }

  function modelChoices(models, view) {
    const names = models.map((one) => one.name);
    const others = names.filter((name) => names.length > 1 || name !== view.model);
    byId("model").replaceChildren(option("", names.length > 1 ? "the user's own" : `${names[0]} ${models[0].version}`, !view.model), ...(names.length > 1 || view.model ? models.map((one) => option(one.name, `${one.name} ${one.version}`, one.name === view.model)) : []));
    const alone = names.length < 2;
    byId("versus").disabled = alone;
    byId("versus").title = alone ? "One model is loaded. AUGUR_MODELS=a=FOLDER,b=FOLDER serves several." : "Rank by two models, side by side";
    byId("versus").replaceChildren(option("", alone ? "one model is loaded" : "nothing", !view.versus), ...(alone ? [] : others.map((name) => option(name, name, name === view.versus))));
  }

  // Writing the same again would cost a layout.
  function put(input, value) {
    if (input.value !== value) input.value = value;
  }

  function write(view, models, asked) {
    put(byId("user"), view.user);
    put(byId("items"), view.items.join(" "));
    contextFields(asked.context_fields, view);
    for (const input of byId("context").querySelectorAll("input")) put(input, view.context[input.dataset.name] ?? "");
    const choices = JSON.stringify([models.map((one) => one.version), view.model, view.versus, asked.name, view.items]);
    if (choices === offered) return;
    offered = choices;
    modelChoices(models, view);
    byId("candidates").replaceChildren(...view.items.map((item) => h("option", { value: item })));
    const chosen = byId("add-action").value || asked.default_action;
    byId("add-action").replaceChildren(...asked.actions.map((action) => option(action, action, action === chosen)));
    byId("add-action").hidden = !asked.actions.length;
  }

  const users = (names) => byId("users").replaceChildren(...names.map((name) => h("option", { value: name })));

  return { write, users };
}
