// What this user wrote and changed, until the server has it. A send keeps its id until it is stored or
// refused for good, and a room has one send in flight, so that a retry cannot overtake; so has a message
// one change.
//
// Next: people.ts.
import type { Chat, Held, Op, Unsent } from "./model";
import type { Attachment, Change, Data, FileKind, Frame, Request, Send } from "./protocol";

export const CHANGES: ReadonlySet<string> = new Set([
  "message.edit", "message.delete", "reaction.add", "reaction.remove", "message.pin", "message.unpin", "message.report",
]);
export const isChange = (request: Request): request is Change => CHANGES.has(request.type);

/** What the message and its room say of it. */
export interface Draft { text: string; reply_to_seq?: number; mentions?: string[]; kind?: FileKind; files?: Attachment[] }

export function send(chat: Chat, draft: Draft, client_msg_id: string, created_at: string): Request[] {
  chat.outbox.push({ ...draft, room_id: chat.open, client_msg_id, created_at });
  const held = chat.rooms.get(chat.open);
  if (held) held.divider = 0;
  return flush(chat);
}

/** Sends what is due, after forgetting what the position has passed: that is history by now. */
export function flush(chat: Chat): Request[] {
  chat.outbox = chat.outbox.filter((one) => !one.seq || one.seq > (chat.rooms.get(one.room_id)?.position ?? 0));
  const busy = new Set<string>();
  return chat.outbox.flatMap((unsent): Request[] => {
    if (unsent.seq || unsent.error || busy.has(unsent.room_id)) return [];
    busy.add(unsent.room_id);
    const { sending } = unsent;
    unsent.sending = true;
    return sending ? [] : [{ type: "message.send", data: body(unsent) }];
  });
}

/** The same every time, since another body under the same id is a conflict. */
function body({ room_id, client_msg_id, text, reply_to_seq, mentions, kind, files = [] }: Unsent): Send {
  const attachments = files.map(({ name: _name, size: _size, content_type: _type, ...sent }) => sent);
  return { room_id, client_msg_id, kind: kind ?? "text", ...(text && { text }), ...(attachments.length && { attachments }), ...(reply_to_seq && { reply_to_seq }), ...(mentions?.length && { mentions }) };
}

/** In words of this page; all others say it themselves. */
const why = ({ code, message }: NonNullable<Frame["error"]>): string => (code === "unsupported_media" ? "the file is not of the type that its name says" : message);

export function sent(chat: Chat, { client_msg_id }: Send, { data = {}, error }: Frame): Request[] {
  const unsent = chat.outbox.find((one) => one.client_msg_id === client_msg_id);
  // A temporary refusal says nothing about the outcome: main.ts calls `again`.
  if (unsent && !error?.temporary) Object.assign(unsent, { sending: false, seq: data.seq, error: error && why(error) });
  return flush(chat);
}

/** What was refused is sent again under its id. */
export function retry(chat: Chat, client_msg_id: string): Request[] {
  for (const unsent of chat.outbox) if (unsent.client_msg_id === client_msg_id) Object.assign(unsent, { error: undefined, sending: false });
  return flush(chat);
}

export function discard(chat: Chat, client_msg_id: string): void {
  chat.outbox = chat.outbox.filter((one) => one.client_msg_id !== client_msg_id || !one.error);
}

export function changeMessage(chat: Chat, change: Change): Request[] {
  const waiting = chat.ops.find((op) => sameMessage(op, change) && op.change.type === "message.edit" && (op.error || !op.sending));
  // An edit that was not sent yet is replaced by the next one.
  if (change.type === "message.edit" && waiting) Object.assign(waiting, { change, error: undefined, sending: false });
  else chat.ops.push({ id: chat.nextOp++, change, sending: false });
  return flushOps(chat);
}

const sameMessage = ({ change: { data } }: Op, other: Change) => data.room_id === other.data.room_id && data.message_seq === other.data.message_seq;

export function flushOps(chat: Chat): Request[] {
  // One that is stored is shown until its event has come.
  chat.ops = chat.ops.filter((op) => !op.seq || op.seq > (chat.rooms.get(op.change.data.room_id)?.position ?? Infinity));
  const busy = new Set<string>();
  return chat.ops.flatMap((op): Request[] => {
    const { room_id, message_seq } = op.change.data;
    const key = `${room_id} ${message_seq}`;
    if (op.seq || op.error || busy.has(key)) return [];
    busy.add(key);
    const { sending } = op;
    op.sending = true;
    return sending ? [] : [op.change];
  });
}

export function changed(chat: Chat, change: Change, data: Data, error?: Frame["error"]): Request[] {
  const op = chat.ops.find((one) => one.sending && one.change === change) ?? chat.ops.find((one) => one.sending && sameMessage(one, change));
  if (!op || error?.temporary) return flushOps(chat);
  op.sending = false;
  op.seq = data.seq ?? 1;
  if (error && change.type === "message.edit") Object.assign(op, { seq: undefined, error: error.code === "revision_conflict" ? "it was changed meanwhile" : error.message });
  else if (error) chat.notice = error.message;
  if (!error && change.type === "message.report") chat.notice = "Reported. Thank you.";
  // The effect held already, so no event follows.
  if (error ? !op.error : data.changed === false || change.type === "message.report") chat.ops = chat.ops.filter((one) => one !== op);
  return flushOps(chat);
}

/** An edit that was refused: once more over whatever there is by now, or not at all. */
export function retryOp(chat: Chat, id: number, isWanted: boolean): Request[] {
  const op = chat.ops.find((one) => one.id === id);
  if (!isWanted) chat.ops = chat.ops.filter((one) => one !== op);
  else if (op?.change.type === "message.edit") {
    const { room_id, message_seq, text } = op.change.data;
    Object.assign(op, { error: undefined, sending: false, change: { type: "message.edit", data: { room_id, message_seq, text } } });
  }
  return flushOps(chat);
}

/** Changes of this room that are not known to be applied, by message. */
export function opsOf(chat: Chat, held: Held): Map<number, Op[]> {
  const all = new Map<number, Op[]>();
  for (const op of chat.ops) if (op.change.data.room_id === held.room_id) all.set(op.change.data.message_seq, [...(all.get(op.change.data.message_seq) ?? []), op]);
  return all;
}
