"""DIENs trained with other libraries, as artifacts of ours: where one can be said in our DIEN's terms, and only there.

A library's file reads its checkpoint into `peer.PeerDien`, in which all of them are written the same way, and names
what our DIEN does not compute; `assemble` lays the parts out as our weights. The algebra is done in float64.
"""
