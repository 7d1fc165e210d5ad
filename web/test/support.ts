// A room with Ada and Bob in it, and short words for what happens there.
import assert from "node:assert/strict";
import * as chats from "../src/chat";
import type { Chat } from "../src/chat";
import { idle } from "../src/connection";
import type { Data, Frame, Message, Request, Room } from "../src/protocol";
import { view } from "../src/view";

export const AT = "2030-01-01T12:00:00.000Z";
export const members = [{ user_id: "ada", name: "Ada" }, { user_id: "bob", name: "Bob" }];
export const room = (more: Partial<Room> = {}): Room => ({ room_id: "r", kind: "direct", last_seq: 10, members, ...more });
export const message = (seq: number, more: Partial<Message> = {}): Message =>
  ({ seq, changed_seq: seq, kind: "text", sender_id: "bob", text: `m${seq}`, created_at: AT, ...more });
export const created = (seq: number, more: Partial<Message> = {}): Frame =>
  ({ type: "message.created", room_id: "r", seq, ts: AT, data: { message: message(seq, more) } });
export const history = (where: object): Request => ({ type: "history.get", data: { room_id: "r", limit: chats.PAGE_MESSAGES, ...where } });
export const answer = (chat: Chat, request: Request, data: Data): Request[] => chats.reply(chat, request, { type: "ack", data });
export const sends = (all: Request[]) => all.flatMap((one) => (one.type === "message.send" ? [one.data.client_msg_id] : []));
export const of = (all: Request[], type: string) => all.filter((one) => one.type === type);
export const lines = (chat: Chat) => view("Ada", chat, idle).lines.filter(({ kind }) => kind !== "day" && kind !== "new");
export const texts = (chat: Chat) => lines(chat).map((line) => line.text);
export const position = (chat: Chat) => chats.resume(chat)?.rooms["r"];
export const send = (chat: Chat, id: string) => chats.send(chat, { text: id }, id, AT);
export const acked = (chat: Chat, id: string, seq: number) =>
  answer(chat, { type: "message.send", data: { room_id: "r", client_msg_id: id, kind: "text", text: id } }, { seq });

/** Ada, in room r with Bob, at position 10 with messages 9 and 10 on the page. */
export function talking(): Chat {
  const chat = chats.empty("ada", []);
  chats.ready(chat, { epoch: "e1", rooms: [room({ recovered: false, reason: "not_requested" })] });
  assert.deepEqual(chats.open(chat, "r"), [history({ before_seq: 11 }), { type: "room.get", data: { room_id: "r" } }]);
  answer(chat, history({ before_seq: 11 }), { messages: [message(9), message(10)], has_more: true, last_seq: 10 });
  return chat;
}
