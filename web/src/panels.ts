// What opens beside the conversation: a room's members and settings, a new group, and what was found.
//
// Next: main.ts.
import { avatar, button, clock, day, get, make, said, sync } from "./dom";
import type { Actions, HitView, Person, Quote, View } from "./shapes";

const SEARCH_AFTER_MS = 300;
const people = (text: string) => [...new Set(text.split(",").map((name) => name.trim()).filter(Boolean))];

export function panels(actions: Actions): (view: View) => void {
  const [details, group, query, here] = [get<HTMLDialogElement>("details"), get<HTMLDialogElement>("group"), get<HTMLInputElement>("query"), get<HTMLInputElement>("here")];
  let [open, shownTitle, searching] = ["", "", 0];
  for (const closer of document.querySelectorAll<HTMLElement>("dialog [data-close]")) closer.onclick = () => closer.closest("dialog")?.close();
  // A click beside a dialog is on the dialog itself.
  for (const dialog of [details, group]) dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };

  get("new-group").onclick = () => group.showModal();
  get("group-form").onsubmit = (event) => {
    const [title, names] = [get<HTMLInputElement>("group-title"), get<HTMLInputElement>("group-names")];
    event.preventDefault();
    actions.group(title.value.trim(), people(names.value));
    [title.value, names.value] = ["", ""];
    group.close();
  };
  get("info").onclick = () => {
    actions.hush();
    details.showModal();
  };
  get("rename").onsubmit = (event) => {
    event.preventDefault();
    actions.room(open, { type: "room.update", data: { title: get<HTMLInputElement>("new-title").value.trim() } });
  };
  get("invite").onsubmit = (event) => {
    const names = get<HTMLInputElement>("invite-names");
    event.preventDefault();
    actions.invite(people(names.value));
    names.value = "";
  };
  get("more-hits").onclick = () => actions.searchOn();
  get("more-people").onclick = () => actions.morePeople();

  const search = () => actions.search(query.value.trim(), here.checked);
  get("search").onsubmit = (event) => (event.preventDefault(), clearTimeout(searching), search());
  query.oninput = () => {
    clearTimeout(searching);
    searching = window.setTimeout(search, query.value.trim() ? SEARCH_AFTER_MS : 0);
  };
  query.onkeydown = (event) => {
    if (event.key !== "Escape") return;
    query.value = "";
    search();
  };
  here.onchange = search;

  return (view) => {
    const { room, found } = view;
    get("search").hidden = !view.canSearch;
    get("here-label").hidden = !room || !query.value;
    get("found").hidden = !found;
    get("rooms").hidden = Boolean(found);
    get("found-count").textContent = !found ? "" : found.busy ? "Searching …" : found.hits.length ? `${found.hits.length}${found.more ? " or more" : ""} found` : "Nothing found";
    get("more-hits").hidden = !found?.more;
    sync(get("hits"), found?.hits ?? [], (hit) => `${hit.room_id} ${hit.seq}`, (hit) => drawHit(hit, actions));
    if (!room || room.key !== open) details.close();
    open = room?.key ?? "";
    get("info").hidden = !room;
    if (!room || !details.open) return void (shownTitle = "");
    get("details-title").textContent = room.title;
    get("rename").hidden = get("invite").hidden = !room.isAdmin;
    if (shownTitle !== `${room.key} ${room.ownTitle}`) get<HTMLInputElement>("new-title").value = room.ownTitle;
    shownTitle = `${room.key} ${room.ownTitle}`;
    get("people-heading").textContent = room.isGroup ? `${room.count} members` : "Members";
    get("more-people").hidden = !room.more;
    get("pins-section").hidden = !room.pins.length;
    const own = [
      ...(room.canMute ? [{ label: room.muted ? "Unmute" : "Mute", type: "mute" }, { label: room.archived ? "Bring back" : "Archive", type: "archive" }] : []),
      ...(room.isGroup ? [{ label: "Leave the group", type: "leave" }] : []),
    ];
    sync(get("own-actions"), own, ({ label }) => label, ({ label, type }) => button(type === "leave" ? "soft danger" : "soft", label, ({ currentTarget }) => {
      const element = currentTarget as HTMLElement;
      if (type === "leave" && element.textContent === label) return void (element.textContent = "Really leave?");
      if (type === "leave") details.close(), actions.room(room.key, { type: "room.leave", data: {} });
      if (type === "mute") actions.room(room.key, { type: "room.mute", data: room.muted ? { until: null } : {} });
      if (type === "archive") actions.room(room.key, { type: "room.archive", data: { archived: !room.archived } });
    }));
    sync(get("pins"), room.pins, ({ seq }) => String(seq), (pin) => drawPin(pin, room.isAdmin || !room.isGroup));
    sync(get("people"), room.people, ({ id }) => id, (person) => drawPerson(person, room.key));
  };

  function drawPin({ seq, author, text }: Quote, isAllowed: boolean): HTMLElement {
    const jump = () => (details.close(), actions.jump(seq));
    return make("li", "", button("quote", `Go to the pinned message of ${author}: ${text}`, jump, said("b", "", author), said("span", "", text)),
      isAllowed ? button("plain link", "Unpin", () => actions.pin(seq, false)) : undefined);
  }

  function drawPerson({ id, name, role, me, presence, seen, can, blocked }: Person, key: string): HTMLElement {
    const change = (to: "admin" | "member") => () => actions.room(key, { type: "room.role.set", data: { user_ids: [id], role: to } });
    return make("li", "", avatar(name, presence), make("div", "who", said("b", "", me ? `${name} (you)` : name), make("span", "quiet", [role === "member" ? "" : role, seen].filter(Boolean).join(", "))),
      can.promote ? button("plain link", "Make admin", change("admin")) : undefined,
      can.demote ? button("plain link", "Not admin", change("member")) : undefined,
      can.remove ? button("plain link danger", "Remove", () => actions.room(key, { type: "room.members.remove", data: { user_ids: [id] } })) : undefined,
      can.block ? button("plain link", blocked ? "Unblock" : "Block", () => actions.block(id, !blocked)) : undefined);
  }
}

function drawHit({ room_id, seq, title, author, text, at }: HitView, actions: Actions): HTMLElement {
  const when = make("small", "quiet", `${day(at)} ${clock(at)}`);
  return make("li", "", button("plain hit", `${author} in ${title}: ${text}`, () => actions.visit(room_id, seq), said("b", "", title), when, said("span", "preview", `${author}: ${text}`)));
}
