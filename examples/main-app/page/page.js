// The Main App's own page. The session is a cookie that no script can read; nothing secret is kept here.
const get = (id) => document.getElementById(id);
const show = (id) => { for (const one of ["ask", "prove", "home"]) get(one).hidden = one !== id; };
/** What follows `#`, which no server is sent: an invitation, or what would stand in the e-mail. */
const told = new URLSearchParams(location.hash.slice(1));
const LOOK_AGAIN_MS = 2_000;
let challenge = "";

async function ask(method, path, body) {
  const headers = body ? { "content-type": "application/json" } : {};
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  const answer = response.status === 204 ? {} : await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.detail ?? response.statusText), { status: response.status });
  return answer;
}

const doing = (what) => async (event) => {
  event?.preventDefault();
  get("notice").textContent = "";
  try { await what(); } catch (error) { get("notice").textContent = error.message; }
};

get("ask").onsubmit = doing(async () => {
  const [email, name] = [get("email").value, get("name").value.trim()];
  const invitation = told.get("invitation") ?? undefined;
  const answer = await (name ? ask("POST", "/v1/signup", { email, name, invitation }) : ask("POST", "/v1/login", { email }));
  challenge = answer.challenge;
  get("shown").textContent = answer.code;
  show("prove");
});
get("prove").onsubmit = doing(async () => { await ask("POST", "/v1/verify", { challenge, code: get("code").value }); await home(); });
get("profile").onsubmit = doing(async () => {
  await ask("PATCH", "/v1/me", { name: get("own-name").value, picture: get("picture").value, preferences: { language: get("language").value } });
  await home();
});
get("invite").onclick = doing(async () => { get("invitation").textContent = (await ask("POST", "/v1/invitations", {})).url; });
get("leave").onclick = doing(async () => { await ask("POST", "/v1/logout", {}); show("ask"); });

async function home() {
  const [me, { sessions }, { chat_url, map_url }] = await Promise.all(["/v1/me", "/v1/sessions", "/v1/config"].map((path) => ask("GET", path)));
  [get("own-name").value, get("picture").value, get("language").value] = [me.name, me.picture ?? "", me.preferences.language ?? "en"];
  [get("chat").href, get("map").href] = [chat_url, map_url];
  get("sessions").replaceChildren(...sessions.map(({ session_id, created_at, is_this }) => {
    const [line, when, end] = ["li", "span", "button"].map((kind) => document.createElement(kind));
    [when.textContent, end.textContent] = [`since ${new Date(created_at).toLocaleString()}${is_this ? ", here" : ""}`, "End"];
    end.onclick = doing(async () => { await ask("DELETE", `/v1/sessions/${session_id}`); await home().catch(() => show("ask")); });
    line.append(when, ...(is_this ? [] : [end]));
    return line;
  }));
  show("home");
  await notified(chat_url);
  return chat_url;
}

/** As a phone shows them: what is read elsewhere goes away by itself. */
async function notified(chat_url) {
  const { notifications, badge } = await ask("GET", "/v1/notifications");
  [get("badge").hidden, get("badge").textContent, get("quiet").hidden] = [!badge, String(badge), notifications.length > 0];
  document.title = badge ? `(${badge}) Caffis` : "Caffis";
  get("notifications").replaceChildren(...notifications.map(({ room_id, title, text }) => {
    const [line, link, what] = ["li", "a", "span"].map((kind) => document.createElement(kind));
    [link.textContent, link.href, what.textContent] = [title, `${chat_url}/#room=${encodeURIComponent(room_id)}`, `: ${text}`];
    line.append(link, what);
    return line;
  }));
}
setInterval(() => { if (!get("home").hidden && !document.hidden) doing(() => notified(get("chat").href.replace(/\/$/, "")))(); }, LOOK_AGAIN_MS);

/** By the link of an e-mail, `#challenge=…&code=…`, one is in at once; `&room=…` goes on to that chat. */
async function begin() {
  const [known, code, room] = [told.get("challenge"), told.get("code"), told.get("room")];
  if (known && code) {
    history.replaceState(null, "", "/"); // used, and not to be kept
    await ask("POST", "/v1/verify", { challenge: known, code });
    const chat = await home();
    if (room) location.assign(`${chat}/#room=${encodeURIComponent(room)}`);
    return;
  }
  await home().catch((error) => { if (error.status !== 401) throw error; show("ask"); });
}
doing(begin)();
