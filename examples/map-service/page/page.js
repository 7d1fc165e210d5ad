// The map's own page. Its token comes from the Main App, by the cookie that only the Main App gets, and is kept in memory.
const get = (id) => document.getElementById(id);
const CENTRE = { lat: 48.2052, lon: 16.3655 };
const SPAN = { lat: 0.036, lon: 0.09 }; // degrees that the picture shows
const LOOK_AGAIN_MS = 2_000;
const REFRESH_BEFORE_MS = 30_000;
const { main_app_url, chat_url } = await fetch("/v1/config").then((response) => response.json());
let [token, refreshAt, me, chosen, places, asking, rooms] = ["", 0, "", undefined, [], undefined, new Map()];

async function getToken() {
  const response = await fetch(`${main_app_url}/v1/token`, { method: "POST", credentials: "include", headers: { "content-type": "application/json" }, body: "{}" });
  if (!response.ok) throw Object.assign(new Error("Log in first"), { status: response.status });
  const told = await response.json();
  const leftMs = Date.parse(told.expires_at) - Date.now();
  [token, me, refreshAt] = [told.token, told.user_id, Date.now() + Math.max(leftMs - REFRESH_BEFORE_MS, leftMs / 2)];
}

async function ask(method, path, body) {
  // Once, however many ask.
  if (Date.now() >= refreshAt) await (asking ??= getToken().finally(() => (asking = undefined)));
  const headers = { authorization: `Bearer ${token}`, ...(body && { "content-type": "application/json" }) };
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  const answer = response.status === 204 ? {} : await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.detail), { status: response.status });
  return answer;
}

const doing = (what) => async (event) => {
  event?.preventDefault();
  try { await what(event); get("notice").textContent = ""; } catch (error) {
    get("notice").textContent = error.message;
    if (error.status === 401) [get("in").hidden, get("out").hidden] = [true, false];
  }
};

const at = ({ lat, lon }) => [400 + ((lon - CENTRE.lon) / SPAN.lon) * 800, 240 - ((lat - CENTRE.lat) / SPAN.lat) * 480];
const drawn = (kind, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

function draw() {
  get("places").replaceChildren(...places.flatMap((place) => {
    const [x, y] = at(place);
    const dot = drawn("circle", { cx: x, cy: y, r: 6, class: place.place_id === chosen?.place_id ? "place chosen" : "place", tabindex: 0, role: "button", "aria-label": place.name });
    const choose = (event) => { event.stopPropagation(); chosen = place; draw(); };
    dot.onclick = choose;
    dot.onkeydown = (event) => event.key === "Enter" && choose(event);
    const name = drawn("text", { x: x + 10, y: y + 4 });
    name.textContent = (place.favorite ? "★ " : "") + (place.favorite || place === chosen ? place.name : "");
    return [dot, name];
  }));
  get("where").textContent = chosen?.name ?? "Choose a café";
}

async function look() {
  const query = `lat=${CENTRE.lat}&lon=${CENTRE.lon}&radius_m=5000`;
  const [{ people }, { invites }, found] = await Promise.all([ask("GET", `/v1/people?${query}`), ask("GET", "/v1/invites"), ask("GET", `/v1/places?${query}`)]);
  places = found.places;
  chosen = places.find(({ place_id }) => place_id === chosen?.place_id);
  draw();
  const who = get("who").value;
  get("who").replaceChildren(...people.map(({ user_id, name, distance_m }) => new Option(`${name}, within ${distance_m} m`, user_id, false, user_id === who)));
  rooms = new Map(people.map(({ user_id, room_id }) => [user_id, room_id]));
  lead();
  get("invites").replaceChildren(...invites.map(line));
}

/** To the room that was opened for the two alone, if there is one. */
function lead() {
  const room_id = rooms.get(get("who").value);
  get("write").hidden = !room_id;
  if (room_id) get("write").href = `${chat_url}/#room=${room_id}`;
}
get("who").onchange = lead;

function line({ invite_id, inviter_id, inviter, invitee, title, status, room_id }) {
  const [item, text] = [document.createElement("li"), document.createElement("span")];
  text.textContent = `${title}: ${inviter} invites ${inviter_id === me ? invitee ?? "somebody" : "you"} (${status})`;
  item.append(text);
  const button = (label, what) => { const one = document.createElement("button"); one.textContent = label; one.onclick = doing(what); item.append(one); };
  if (status === "pending" && inviter_id !== me) for (const answer of ["accept", "decline"]) button(answer, async () => { await ask("POST", `/v1/invites/${invite_id}/${answer}`); await look(); });
  if (room_id) { const chat = document.createElement("a"); [chat.className, chat.textContent, chat.href] = ["button", "Chat", `${chat_url}/#room=${room_id}`]; item.append(chat); }
  return item;
}

get("map").onclick = doing(async ({ clientX, clientY }) => {
  const { x, y } = new DOMPoint(clientX, clientY).matrixTransform(get("map").getScreenCTM().inverse());
  const here = { lat: CENTRE.lat + ((240 - y) / 480) * SPAN.lat, lon: CENTRE.lon + ((x - 400) / 800) * SPAN.lon };
  await ask("PUT", "/v1/me/location", here);
  [get("me").hidden, get("me").cx.baseVal.value, get("me").cy.baseVal.value] = [false, x, y];
});
get("ask").onsubmit = doing(async () => {
  if (!chosen) throw new Error("Choose a café first");
  await ask("POST", "/v1/invites", { invitee_id: get("who").value, place_id: chosen.place_id });
  await look();
});
get("like").onclick = doing(async () => { if (chosen) await ask(chosen.favorite ? "DELETE" : "PUT", `/v1/me/favorites/${chosen.place_id}`); await look(); });
get("main-app").href = main_app_url;
await doing(async () => { await look(); get("in").hidden = false; })();
setInterval(() => { if (!get("in").hidden && !document.hidden) doing(look)(); }, LOOK_AGAIN_MS);
