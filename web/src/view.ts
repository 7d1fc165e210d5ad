// Turns what is known into what is shown: the only place with sentences for people.
//
// Next: ui.ts.
import type { Connection } from "./connection";
import { TICKS_MEMBERS_MAX, can, isAdmin, isMuted, isNamed, myRole, others, shown, type Chat, type Held, type Kept, type Op, type Unsent } from "./model";
import { opsOf } from "./outbox";
import { typers } from "./people";
import type { Attachment, FileKind, Member, Message } from "./protocol";
import type { FileView, Line, Mark, Person, Quote, RoomView, Row, View } from "./shapes";
import { isBig, parts, type Part } from "./text";

const STOPPED: Record<number, string> = { 4001: "Please sign in again", 4003: "Not allowed", 4009: "Please reload", 4011: "User deleted" };
const TEXT_MAX = 4000;
const TOGETHER_MS = 5 * 60_000;
const QUOTE_MAX = 140;
const MINUTE = 60_000;

export function view(me: string, chat: Chat, { phase, code }: Connection, now = Date.now()): View {
  const held = chat.rooms.get(chat.open);
  const tone = phase === "ready" ? "good" : phase === "stopped" ? "bad" : "busy";
  const all = [...chat.rooms.values()].sort((one, other) => at(other).localeCompare(at(one)));
  const { jump, found } = chat;
  return {
    me, tone, notice: chat.notice, page: !me ? "login" : held ? "room" : "rooms", presence: chat.state,
    state: { good: "Connected", bad: STOPPED[code] ?? "Stopped", busy: "Connecting …" }[tone],
    paused: phase === "ready" && chat.paused.length ? `The server is busy: no ${chat.paused.join(", ")} for now` : "",
    unread: all.reduce((sum, one) => sum + (isMuted(one, now) ? 0 : one.unread ?? 0), 0),
    title: held ? title(chat, held) : "", open: held?.room_id ?? "", lines: held ? lines(chat, held) : [],
    rooms: all.filter((one) => !one.archived).map((one) => row(chat, one, held, now)),
    away: all.filter((one) => one.archived).map((one) => row(chat, one, held, now)),
    room: held && roomView(chat, held, now), jump: jump && jump.room_id === held?.room_id ? jump.seq : undefined,
    canSearch: can(chat, "search"), canArchive: can(chat, "room.archive"), canPresence: can(chat, "presence.set"), canFiles: can(chat, "upload.create"), textMax: chat.limits?.text_chars ?? TEXT_MAX,
    found: found && {
      query: found.query, here: Boolean(found.room_id), busy: found.busy, more: Boolean(found.next),
      hits: found.hits.map(({ room_id, message }) => {
        const room = chat.rooms.get(room_id);
        return { room_id, seq: message.seq, title: room ? title(chat, room) : "Conversation", author: name(chat, message.sender_id), text: body(message), at: message.created_at };
      }),
    },
  };
}

const at = (held: Held) => held.last_message?.created_at ?? held.created_at ?? "";
const name = (chat: Chat, id?: string | null) => chat.names.get(id ?? "") ?? "Somebody";
const FILES: Record<string, string> = { image: "Photo", voice: "Voice note", file: "File" };
const body = ({ deleted_at, text, kind, attachments: [first] = [] }: Message) =>
  deleted_at ? "This message was deleted" : text || (kind === "file" && first ? first.name : FILES[kind] ?? `(${kind})`);
/** What is shown of files; with a text of its own, a message without words has none. */
const filesOf = (room_id: string, kind: string, all: Attachment[] = []): FileView[] => all.map((one) => ({ ...one, kind: kind as FileKind, room_id }));
const excerpt = (text: string) => (text.length > QUOTE_MAX ? `${text.slice(0, QUOTE_MAX)}…` : text);

function title(chat: Chat, room: Held): string {
  return room.title || others(chat, room).map((member) => name(chat, member.user_id)).join(", ") || "Conversation";
}

function preview(chat: Chat, { last_message: last, kind }: Held): string {
  if (!last || last.kind === "system") return last ? told(chat, last) : "No messages yet";
  if (chat.blocked.has(last.sender_id ?? "")) return "Message of somebody you blocked";
  return `${last.sender_id === chat.me ? "You: " : kind === "group" ? `${name(chat, last.sender_id)}: ` : ""}${body(last)}`;
}

function row(chat: Chat, held: Held, open: Held | undefined, now: number): Row {
  const isGroup = held.kind === "group";
  const typing = typers(chat, held).length > 0;
  return {
    key: held.room_id, title: title(chat, held), preview: typing ? `${isGroup ? names(chat, typers(chat, held)) : ""} typing …`.trim() : preview(chat, held), typing,
    unread: held.unread ?? 0, open: held === open, at: at(held), muted: isMuted(held, now), named: held.named && Boolean(held.unread),
    archived: Boolean(held.archived), isGroup, canMute: can(chat, "room.mute"), presence: isGroup ? "" : presence(chat, others(chat, held)[0]),
  };
}

const presence = (chat: Chat, member?: Member) => (member ? chat.presence.get(member.user_id)?.state ?? "" : "");
const names = (chat: Chat, ids: string[]) => ids.map((id) => name(chat, id)).join(", ");

function seen(chat: Chat, member: Member | undefined, now: number): string {
  const { state, last_seen_at } = chat.presence.get(member?.user_id ?? "") ?? {};
  if (state === "online" || state === "away") return state;
  if (!state || !last_seen_at) return state ?? "";
  const minutes = Math.max(0, Math.round((now - Date.parse(last_seen_at)) / MINUTE));
  if (minutes < 60) return minutes < 2 ? "last seen just now" : `last seen ${minutes} min ago`;
  if (minutes < 24 * 60) return `last seen ${Math.round(minutes / 60)} h ago`;
  return `last seen ${new Date(last_seen_at).toLocaleDateString()}`;
}

function typingLine(chat: Chat, held: Held): string {
  const who = typers(chat, held).map((id) => name(chat, id));
  if (!who.length) return "";
  if (who.length > 3) return "Several people are typing …";
  const last = who.pop();
  return who.length ? `${who.join(", ")} and ${last} are typing …` : `${last} is typing …`;
}

function roomView(chat: Chat, held: Held, now: number): RoomView {
  const isGroup = held.kind === "group";
  const [peer, mine] = [isGroup ? undefined : others(chat, held)[0], myRole(chat, held)];
  const count = held.member_count ?? held.members?.length ?? 0;
  const canBlock = can(chat, "user.block");
  const person = (member: Member): Person => {
    const { user_id, role = "member" } = member;
    const me = user_id === chat.me;
    return {
      id: user_id, name: name(chat, user_id), role, me, presence: me ? "" : presence(chat, member), seen: me ? "" : seen(chat, member, now), blocked: chat.blocked.has(user_id),
      can: {
        remove: isGroup && !me && RANK[mine] > RANK[role] && mine !== "member", block: !me && canBlock,
        promote: isGroup && !me && mine === "owner" && role === "member", demote: isGroup && !me && mine === "owner" && role === "admin",
      },
    };
  };
  const online = others(chat, held).filter((member) => presence(chat, member) === "online").length;
  const mentions = others(chat, held).filter(({ user_id }) => !chat.blocked.has(user_id)).map(({ user_id }) => ({ id: user_id, name: name(chat, user_id) }));
  return {
    key: held.room_id, title: title(chat, held), ownTitle: held.title ?? "", isGroup, isAdmin: isAdmin(chat, held), count,
    subtitle: isGroup ? `${count} members${online ? `, ${online} online` : ""}` : seen(chat, peer, now), presence: presence(chat, peer), typing: typingLine(chat, held),
    people: (held.members ?? []).map(person).sort((one, other) => RANK[other.role] - RANK[one.role] || one.name.localeCompare(other.name)),
    more: (held.members?.length ?? 0) < count && can(chat, "room.members.list") && held.membersCursor !== null,
    pins: (held.pins ?? []).map(({ message_seq }) => quote(chat, held, message_seq)),
    muted: isMuted(held, now), archived: Boolean(held.archived), canMute: can(chat, "room.mute"), canBlock,
    blocked: peer && chat.blocked.has(peer.user_id) ? peer.user_id : "", blockedName: name(chat, peer?.user_id),
    hasOlder: (held.island ?? held).hasOlder, inPast: Boolean(held.island), loading: held.loading || Boolean(held.catching), unread: held.unread ?? 0,
    mentions: isAdmin(chat, held) ? [...mentions, { id: "all", name: "all" }] : mentions, reports: can(chat, "message.report"),
  };
}

const RANK = { member: 0, admin: 1, owner: 2 };

function quote(chat: Chat, held: Held, seq: number): Quote {
  const message = held.messages.get(seq) ?? held.quoted.get(seq);
  if (!message) return { seq, author: "", text: "An earlier message" };
  return { seq, author: name(chat, message.sender_id), text: chat.blocked.has(message.sender_id ?? "") ? "(hidden)" : excerpt(body(message)) };
}

function lines(chat: Chat, held: Held): Line[] {
  const [ops, pins] = [opsOf(chat, held), new Set((held.pins ?? []).map((pin) => pin.message_seq))];
  const context: Context = { chat, held, pins, admin: isAdmin(chat, held), isGroup: held.kind === "group" };
  const all = shown(held).map((message) => stored(context, message, ops.get(message.seq) ?? []));
  if (!held.island) all.push(...chat.outbox.filter(({ room_id }) => room_id === held.room_id).map((unsent) => waiting(context, unsent)));
  return arranged(all, held.divider, (line) => line.kind === "theirs");
}

interface Context { chat: Chat; held: Held; pins: Set<number>; admin: boolean; isGroup: boolean }

/** With a line for each day and one above what is new; who goes on is not named again. */
function arranged(all: Line[], divider: number, isNew: (line: Line) => boolean): Line[] {
  const out: Line[] = [];
  let [day, before, divided] = ["", undefined as Line | undefined, divider === 0];
  for (const line of all) {
    // Within the minute of the line before, no calendar is asked.
    const today = line.at.slice(0, 16) === before?.at.slice(0, 16) ? day : new Date(line.at).toDateString();
    if (today !== day) out.push({ key: `day ${today}`, kind: "day", text: "", author: "", at: line.at }), (before = undefined);
    day = today;
    if (!divided && isNew(line) && (line.seq ?? Infinity) > divider) {
      out.push({ key: "new", kind: "new", text: "New messages", author: "", at: "" });
      [divided, before] = [true, undefined];
    }
    const goesOn = before?.kind === line.kind && before.author === line.author && Date.parse(line.at) - Date.parse(before.at) < TOGETHER_MS;
    out.push(line.kind === "system" ? line : { ...line, first: !goesOn });
    before = line;
  }
  return out;
}

function stored({ chat, held, pins, admin, isGroup }: Context, message: Kept, ops: Op[]): Line {
  const { seq, sender_id, created_at, edited_at, kind } = message;
  const common = { key: String(seq), seq, author: name(chat, sender_id), at: created_at };
  if (kind === "system") return { ...common, kind, text: told(chat, message) };
  const own = sender_id === chat.me;
  const edit = ops.filter(({ change }) => change.type === "message.edit").at(-1);
  const deleted = Boolean(message.deleted_at) || ops.some(({ change }) => change.type === "message.delete");
  const text = deleted ? "This message was deleted" : edit?.change.type === "message.edit" ? edit.change.data.text : message.attachments?.length ? message.text ?? "" : body(message);
  const pin = ops.filter(({ change }) => change.type === "message.pin" || change.type === "message.unpin").at(-1);
  const pinned = pin ? pin.change.type === "message.pin" : pins.has(seq);
  const says = (message.mentions ?? []).map((id) => (id === "all" ? "all" : name(chat, id)));
  const { words, big } = deleted ? NOTHING : read(message, text, says);
  return {
    ...common, kind: own ? "mine" : "theirs", text, deleted, pinned: pinned && !deleted, edited: Boolean(edited_at || edit) && !deleted,
    parts: words, big, named: !own && !deleted && isNamed(chat, message),
    ...(!deleted && message.attachments?.length && { files: filesOf(held.room_id, kind, message.attachments) }),
    folded: isGroup && chat.blocked.has(sender_id ?? ""), marks: deleted ? [] : marks(message, ops),
    ...(message.reply_to_seq && !deleted && { quote: quote(chat, held, message.reply_to_seq) }),
    ...(own && (edit?.error ? { state: "failed" as const, error: `Not saved: ${edit.error}`, op: edit.id } : edit && !edit.seq ? { state: "sending" as const } : ticks(chat, held, seq))),
    can: { edit: own && !deleted, remove: (own || admin) && !deleted, pin: (admin || !isGroup) && !deleted, report: !own && !deleted && can(chat, "message.report") },
  };
}

interface Read { text: string; says: string; words?: Part[]; big: boolean }
const NOTHING: Read = { text: "", says: "", big: false };
/** A text is cut into its parts once, not with each drawing. */
const cut = new WeakMap<Message, Read>();

function read(message: Message, text: string, names: string[]): Read {
  const [known, says] = [cut.get(message), names.join("\n")];
  if (known?.text === text && known.says === says) return known;
  const fresh = { text, says, words: parts(text, names), big: isBig(text) };
  cut.set(message, fresh);
  return fresh;
}

function waiting({ chat, held }: Context, { client_msg_id, text, created_at, error, seq, reply_to_seq, mentions = [], kind, files }: Unsent): Line {
  const says = mentions.map((id) => (id === "all" ? "all" : name(chat, id)));
  return {
    key: client_msg_id, kind: "mine", author: name(chat, chat.me), text, at: created_at, parts: parts(text, says), big: isBig(text), marks: [],
    ...(kind && files?.length && { files: filesOf(held.room_id, kind, files) }),
    state: error ? "failed" : seq ? "sent" : "sending", ...(error && { error: `Not sent: ${error}`, unsent: client_msg_id, says: mentions.map((id, at) => [says[at] ?? "", id]) }),
    ...(reply_to_seq && { quote: quote(chat, held, reply_to_seq) }),
  };
}

/** Sent, received by everybody, or read by everybody. */
function ticks(chat: Chat, held: Held, seq: number): Pick<Line, "state" | "hint"> {
  const all = others(chat, held);
  if (!all.length || (held.member_count ?? 0) > TICKS_MEMBERS_MAX) return { state: "sent" };
  const reached = (kind: "read" | "delivered") => all.filter(({ user_id }) => (held.marks.get(user_id)?.[kind] ?? 0) >= seq);
  const [read, delivered] = [reached("read"), reached("delivered")];
  const hint = read.length && held.kind === "group" ? `Read by ${read.map(({ user_id }) => name(chat, user_id)).join(", ")}` : undefined;
  return { state: read.length === all.length ? "read" : delivered.length === all.length ? "delivered" : "sent", hint };
}

function marks({ reactions = {}, mine }: Kept, ops: Op[]): Mark[] {
  const all = new Map(Object.entries(reactions).map(([emoji, { count }]) => [emoji, { emoji, count, mine: mine.includes(emoji) }]));
  for (const { change } of ops) {
    if (change.type !== "reaction.add" && change.type !== "reaction.remove") continue;
    const [emoji, add] = [change.data.emoji, change.type === "reaction.add"];
    const mark = all.get(emoji) ?? { emoji, count: 0, mine: false };
    if (mark.mine !== add) all.set(emoji, { emoji, count: mark.count + (add ? 1 : -1), mine: add });
  }
  return [...all.values()].filter(({ count }) => count > 0);
}

function told(chat: Chat, { event, sender_id }: Message): string {
  const actor = name(chat, event?.actor_id ?? sender_id);
  const who = event?.name || name(chat, event?.user_id);
  const self = !event?.actor_id || event.actor_id === event.user_id;
  switch (event?.type) {
    case "member.joined": return self ? `${who} joined` : `${actor} added ${who}`;
    case "member.left": return self ? `${who} left` : `${actor} removed ${who}`;
    case "room.updated": {
      const named = event.title ? `${actor} named the room ${event.title}` : `${actor} took the room's name away`;
      const shown = event.picture ? `${actor} changed the room's picture` : `${actor} took the room's picture away`;
      return [event.title !== undefined && named, event.picture !== undefined && shown].filter(Boolean).join(" · ");
    }
    case "member.role_changed": return `${who} is ${event.role} now`;
    case "user.erased": return "Somebody deleted their account";
    case "room.created": return "The conversation begins";
    default: return "The room changed";
  }
}
