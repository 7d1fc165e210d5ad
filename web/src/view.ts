// Turns what is known into what is shown: the only place with sentences for people.
//
// Next: ui.ts.
import type { Chat, Held } from "./chat";
import type { Connection } from "./connection";
import type { Message } from "./protocol";
import type { Line, View } from "./ui";

const STOPPED: Record<number, string> = { 4001: "Please sign in again", 4003: "Not allowed", 4009: "Please reload", 4011: "User deleted" };

export function view(me: string, chat: Chat, { phase, code }: Connection): View {
  const held = chat.rooms.get(chat.open);
  const tone = phase === "ready" ? "good" : phase === "stopped" ? "bad" : "busy";
  const rooms = [...chat.rooms.values()].sort((one, other) => at(other).localeCompare(at(one)));
  return {
    me, tone, notice: chat.notice, page: !me ? "login" : held ? "room" : "rooms",
    state: { good: "Connected", bad: STOPPED[code] ?? "Stopped", busy: "Connecting …" }[tone],
    title: held ? title(chat, held) : "", open: held?.room_id ?? "", lines: held ? lines(chat, held) : [],
    rooms: rooms.map((room) => ({ key: room.room_id, title: title(chat, room), preview: preview(chat, room), unread: room.unread ?? 0, open: room === held })),
  };
}

const at = (held: Held) => held.last_message?.created_at ?? held.created_at ?? "";
const name = (chat: Chat, id?: string | null) => chat.names.get(id ?? "") ?? "Somebody";
const body = ({ deleted_at, text, kind }: Message) => (deleted_at ? "This message was deleted" : text || `(${kind})`);

function title(chat: Chat, room: Held): string {
  const others = (room.members ?? []).filter((member) => member.user_id !== chat.me);
  return room.title || others.map((member) => name(chat, member.user_id)).join(", ") || "Conversation";
}

function preview(chat: Chat, { last_message: last }: Held): string {
  if (!last || last.kind === "system") return last ? told(chat, last) : "No messages yet";
  return `${last.sender_id === chat.me ? "You: " : ""}${body(last)}`;
}

function lines(chat: Chat, held: Held): Line[] {
  const stored = [...held.messages.values()].sort((one, other) => one.seq - other.seq).map((message): Line => {
    const { seq, sender_id, created_at, edited_at, kind } = message;
    const common = { key: String(seq), seq, author: name(chat, sender_id), at: created_at, mark: edited_at ? "edited" : "" };
    if (kind === "system") return { ...common, kind, text: told(chat, message) };
    if (sender_id !== chat.me) return { ...common, kind: "theirs", text: body(message) };
    return { ...common, kind: "mine", text: body(message), mark: `${common.mark} ✓` };
  });
  const waiting = chat.outbox.filter(({ room_id }) => room_id === held.room_id).map((unsent): Line => {
    const mark = unsent.error ? `not sent: ${unsent.error}` : unsent.seq ? "✓" : "sending …";
    return { key: unsent.client_msg_id, kind: "mine", author: name(chat, chat.me), text: unsent.text, at: unsent.created_at, mark };
  });
  return [...stored, ...waiting];
}

function told(chat: Chat, { event, sender_id }: Message): string {
  const actor = name(chat, event?.actor_id ?? sender_id);
  const who = event?.name || name(chat, event?.user_id);
  const self = !event?.actor_id || event.actor_id === event.user_id;
  switch (event?.type) {
    case "member.joined": return self ? `${who} joined` : `${actor} added ${who}`;
    case "member.left": return self ? `${who} left` : `${actor} removed ${who}`;
    case "room.updated": return event.title ? `${actor} named the room ${event.title}` : `${actor} changed the room`;
    case "member.role_changed": return `${who} is ${event.role} now`;
    case "room.created": return "The conversation begins";
    default: return "The room changed";
  }
}
