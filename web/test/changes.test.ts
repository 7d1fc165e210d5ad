import assert from "node:assert/strict";
import { test } from "node:test";
import * as chats from "../src/chat";
import type { Chat } from "../src/chat";
import { idle } from "../src/connection";
import type { Change, Frame, Request } from "../src/protocol";
import { view } from "../src/view";
import { AT, answer, created, history, lines, message, of, position, room, send, sends, talking } from "./support";

const line = (chat: Chat, seq: number) => lines(chat).find((one) => one.seq === seq);
const marks = (chat: Chat, seq: number) => line(chat, seq)?.marks?.map(({ emoji, count, mine }) => `${emoji}${count}${mine ? " mine" : ""}`);
const reacted = (seq: number, message_seq: number, user_id: string, emoji: string, added: boolean, count: number): Frame =>
  ({ type: "reaction.updated", room_id: "r", seq, ts: AT, data: { message_seq, user_id, emoji, added, count } });
const edited = (seq: number, message_seq: number, text: string): Frame =>
  ({ type: "message.updated", room_id: "r", seq, ts: AT, data: { message_seq, message: message(message_seq, { text, changed_seq: seq, edited_at: AT }) } });
const edit = (text: string): Change => ({ type: "message.edit", data: { room_id: "r", message_seq: 10, text } });
const react = (emoji: string, add = true): Change => ({ type: add ? "reaction.add" : "reaction.remove", data: { room_id: "r", message_seq: 10, emoji } });
const refused = (chat: Chat, request: Request, code: string, temporary = false) => chats.reply(chat, request, { type: "error", error: { code, message: code, temporary } });

test("reactions are counted, and one's own are known by who did them", () => {
  const chat = talking();
  chats.event(chat, reacted(11, 10, "bob", "🎉", true, 1));
  assert.deepEqual(marks(chat, 10), ["🎉1"]);
  chats.event(chat, reacted(12, 10, "ada", "🎉", true, 2));
  assert.deepEqual(marks(chat, 10), ["🎉2 mine"]);
  chats.event(chat, edited(13, 10, "now"));
  assert.deepEqual(marks(chat, 10), [], "the state that is told whole counts");
  chats.event(chat, reacted(14, 10, "ada", "🎉", false, 0));
  assert.deepEqual(marks(chat, 10), []);
});

test("a page tells which reactions are one's own, and an event with the whole message does not take that away", () => {
  const chat = talking();
  answer(chat, history({ before_seq: 9 }), { messages: [message(8, { reactions: { "☕": { count: 3, mine: true }, "🎉": { count: 1, mine: false } } })], has_more: false, last_seq: 10 });
  assert.deepEqual(marks(chat, 8), ["☕3 mine", "🎉1"]);
  chats.event(chat, { type: "message.updated", room_id: "r", seq: 11, ts: AT, data: { message_seq: 8, message: message(8, { changed_seq: 11, reactions: { "☕": { count: 3 }, "🎉": { count: 1 } } }) } });
  assert.deepEqual(marks(chat, 8), ["☕3 mine", "🎉1"]);
});

test("one's own reaction of another device counts though the message was told in a later state", () => {
  const chat = talking();
  chats.event(chat, { type: "message.updated", room_id: "r", seq: 11, ts: AT, data: { message_seq: 10, message: message(10, { changed_seq: 12, reactions: { "☕": { count: 1 } } }) } });
  assert.deepEqual(marks(chat, 10), ["☕1"]);
  chats.event(chat, reacted(12, 10, "ada", "☕", true, 1));
  assert.deepEqual(marks(chat, 10), ["☕1 mine"]);
});

test("while pages are fetched, a partial change waits for the page that has the state before it", () => {
  const chat = talking();
  chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 20, recovered: false, reason: "too_much" })] });
  chats.event(chat, reacted(21, 10, "bob", "🎉", true, 1));
  assert.deepEqual(marks(chat, 10), [], "the edit at 15 is still to come");
  const next = answer(chat, history({ after_seq: 10 }), { messages: [message(10, { text: "edited", changed_seq: 15, edited_at: AT })], has_more: true, next_after_seq: 15, last_seq: 20 });
  assert.deepEqual(next, [history({ after_seq: 15 })]);
  assert.deepEqual([line(chat, 10)?.text, marks(chat, 10)], ["edited", []]);
  answer(chat, history({ after_seq: 15 }), { messages: [message(20)], has_more: false, next_after_seq: 20, last_seq: 20 });
  assert.deepEqual([line(chat, 10)?.text, marks(chat, 10), position(chat)], ["edited", ["🎉1"], 21]);
});

test("what was fetched before the connection ended is not fetched again", () => {
  const chat = talking();
  chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 500, recovered: false, reason: "too_much" })] });
  answer(chat, history({ after_seq: 10 }), { messages: [message(11)], has_more: true, next_after_seq: 300, last_seq: 500 });
  assert.equal(position(chat), 10);
  const again = chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 600, recovered: false, reason: "too_much" })] });
  assert.deepEqual(of(again, "history.get"), [history({ after_seq: 300 })]);
});

test("after too much the newest page is worth more than all that was missed", () => {
  const chat = talking();
  const requests = chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 9_000, recovered: false, reason: "position_expired" })] });
  assert.deepEqual(of(requests, "history.get"), [history({ before_seq: 9_001 })]);
  assert.deepEqual([position(chat), lines(chat).length], [9_000, 0]);
});

test("an expired position begins at the newest page, also near the end", () => {
  const chat = talking();
  chats.event(chat, created(11));
  const requests = chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 20, recovered: false, reason: "position_expired" })] });
  assert.deepEqual(of(requests, "history.get"), [history({ before_seq: 21 })]);
  assert.deepEqual([position(chat), lines(chat).length], [20, 0]);
  answer(chat, history({ before_seq: 21 }), { messages: [message(19), message(20)], has_more: false, last_seq: 20, floor_seq: 18 });
  assert.deepEqual(lines(chat).map((line) => line.text), ["m19", "m20"]);
});

test("what is no longer kept is shown no longer, and quoted as what was deleted", () => {
  const chat = talking();
  for (const seq of [11, 12, 13]) chats.event(chat, created(seq, seq === 13 ? { reply_to_seq: 5 } : {}));
  const [quote] = chats.quote(chat.rooms.get("r")!, 5);
  assert.deepEqual(quote, history({ around_seq: 5, limit: 1 }));
  answer(chat, quote!, { messages: [message(13)], has_more: true, last_seq: 13, floor_seq: 12 });
  assert.deepEqual(lines(chat).map((line) => line.text), ["m13"]);
  assert.equal(line(chat, 13)?.quote?.text, "This message was deleted");
  // There is nothing before it.
  assert.deepEqual(chats.older(chat), []);
});

test("rooms that ready did not describe are caught up when the list tells of them", () => {
  const chat = talking();
  chats.ready(chat, { epoch: "e1", rooms: [] });
  assert.deepEqual(of(answer(chat, { type: "rooms.list", data: {} }, { rooms: [room({ last_seq: 12 })] }), "history.get"), [history({ after_seq: 10 })]);
});

test("an edit is shown at once, then stored, then told", () => {
  const chat = talking();
  chats.event(chat, created(11, { sender_id: "ada", client_msg_id: "a" }));
  const change: Change = { type: "message.edit", data: { room_id: "r", message_seq: 11, text: "better", expected_revision: 1 } };
  const [request] = chats.changeMessage(chat, change);
  assert.equal(request, change);
  assert.deepEqual([line(chat, 11)?.text, line(chat, 11)?.state, line(chat, 11)?.edited], ["better", "sending", true]);
  answer(chat, change, { message_seq: 11, changed: true, seq: 12 });
  assert.deepEqual([line(chat, 11)?.text, line(chat, 11)?.state], ["better", "sent"]);
  chats.event(chat, { type: "message.updated", room_id: "r", seq: 12, ts: AT, data: { message_seq: 11, message: message(11, { sender_id: "ada", text: "better", changed_seq: 12, edited_at: AT }) } });
  assert.deepEqual([line(chat, 11)?.text, chat.ops], ["better", []]);
});

test("an edit that was refused stays, to be tried again or dropped", () => {
  const chat = talking();
  chats.event(chat, created(11, { sender_id: "ada" }));
  const change: Change = { type: "message.edit", data: { room_id: "r", message_seq: 11, text: "better", expected_revision: 1 } };
  chats.changeMessage(chat, change);
  refused(chat, change, "revision_conflict");
  const { state, error, op, text } = line(chat, 11) ?? {};
  assert.deepEqual([state, error, text], ["failed", "Not saved: it was changed meanwhile", "better"]);
  assert.deepEqual(chats.retryOp(chat, op ?? 0, true), [{ type: "message.edit", data: { room_id: "r", message_seq: 11, text: "better" } }]);
  chats.retryOp(chat, op ?? 0, false);
  assert.equal(line(chat, 11)?.text, "m11");
});

test("changes of one message go one by one, and again after a reconnect", () => {
  const chat = talking();
  const [add, remove] = [react("🎉"), react("🎉", false)];
  assert.deepEqual(chats.changeMessage(chat, add), [add]);
  assert.deepEqual(chats.changeMessage(chat, remove), []);
  assert.deepEqual(marks(chat, 10), []);
  refused(chat, add, "unavailable", true);
  assert.deepEqual(chats.again(chat, add), [add]);
  assert.deepEqual(of(chats.ready(chat, { epoch: "e1", rooms: [room({ recovered: true })] }), "reaction.add"), [add]);
  assert.deepEqual(answer(chat, add, { changed: true, seq: 11 }), [remove]);
  answer(chat, remove, { changed: false, seq: 11 });
  chats.event(chat, reacted(11, 10, "ada", "🎉", true, 1));
  assert.deepEqual(chat.ops, []);
});

test("a reaction that is refused vanishes, and says why; one that held already waits for no event", () => {
  const chat = talking();
  chats.changeMessage(chat, react("🎉"));
  assert.deepEqual(marks(chat, 10), ["🎉1 mine"]);
  refused(chat, react("🎉"), "too_large");
  assert.deepEqual([marks(chat, 10), chat.notice], [[], "too_large"]);
  chats.changeMessage(chat, react("☕"));
  answer(chat, react("☕"), { changed: false, seq: 10 });
  assert.deepEqual(chat.ops, []);
});

test("a deletion is a tombstone at once, with nothing left to do to it", () => {
  const chat = talking();
  chats.event(chat, { type: "message.pinned", room_id: "r", seq: 11, ts: AT, data: { message_seq: 10 } });
  assert.equal(line(chat, 10)?.pinned, true);
  chats.event(chat, { type: "message.deleted", room_id: "r", seq: 12, ts: AT, data: { message_seq: 10, deleted_at: AT } });
  const { deleted, text, pinned, can } = line(chat, 10) ?? {};
  assert.deepEqual([deleted, text, pinned, can], [true, "This message was deleted", false, { edit: false, remove: false, pin: false, report: false }]);
  assert.deepEqual(view("Ada", chat, idle).room?.pins, []);
  assert.equal(view("Ada", chat, idle).rooms[0]?.preview, "This message was deleted");
});

test("another epoch forgets changes of what may never have been", () => {
  const chat = talking();
  chats.changeMessage(chat, edit("x"));
  assert.deepEqual(of(chats.ready(chat, { epoch: "e2", rooms: [] }), "message.edit"), []);
});

test("a reply names the message and is the same body with every try", () => {
  const chat = talking();
  const draft = { text: "yes @Bob", reply_to_seq: 9, mentions: ["bob"] };
  const [first] = chats.send(chat, draft, "a", AT);
  assert.deepEqual(first, { type: "message.send", data: { room_id: "r", client_msg_id: "a", kind: "text", ...draft } });
  const last = lines(chat).at(-1);
  assert.deepEqual(last?.quote, { seq: 9, author: "Bob", text: "m9" });
  assert.deepEqual(last?.parts, [{ kind: "text", text: "yes " }, { kind: "name", text: "@Bob" }]);
  refused(chat, first!, "forbidden");
  assert.deepEqual([lines(chat).at(-1)?.state, lines(chat).at(-1)?.unsent], ["failed", "a"]);
  assert.deepEqual(chats.retry(chat, "a"), [first]);
  refused(chat, first!, "forbidden");
  chats.discard(chat, "a");
  assert.deepEqual(chat.outbox, []);
});

test("what waits for the server cannot be discarded, since it may be stored already", () => {
  const chat = talking();
  send(chat, "a");
  chats.discard(chat, "a");
  assert.deepEqual(sends(chats.ready(chat, { epoch: "e1", rooms: [room({ recovered: true })] })), ["a"]);
});

test("a message that is quoted but not held is asked for, once, and changes with its events", () => {
  const chat = talking();
  const asked: Request = { type: "history.get", data: { room_id: "r", around_seq: 3, limit: 1 } };
  chats.event(chat, created(11, { reply_to_seq: 3 }));
  assert.equal(line(chat, 11)?.quote?.text, "An earlier message");
  assert.deepEqual(of(chats.pulse(chat, 0), "history.get"), [asked]);
  assert.deepEqual(of(chats.pulse(chat, 1), "history.get"), []);
  answer(chat, asked, { messages: [message(3)], has_more: true, last_seq: 11 });
  assert.deepEqual(line(chat, 11)?.quote, { seq: 3, author: "Bob", text: "m3" });
  chats.event(chat, { type: "message.deleted", room_id: "r", seq: 12, ts: AT, data: { message_seq: 3 } });
  assert.equal(line(chat, 11)?.quote?.text, "This message was deleted");
});

test("a jump shows a stretch of the past, which grows both ways until it meets the newest messages", () => {
  const chat = talking();
  const around = (seq: number, limit: number): Request => ({ type: "history.get", data: { room_id: "r", around_seq: seq, limit } });
  assert.deepEqual(chats.jump(chat, "r", 3), [around(3, 50)]);
  answer(chat, around(3, 50), { messages: [2, 3, 4].map((seq) => message(seq)), has_more: true, last_seq: 10 });
  assert.deepEqual(lines(chat).map(({ seq }) => seq), [2, 3, 4]);
  assert.equal(view("Ada", chat, idle).jump, 3);
  assert.equal(view("Ada", chat, idle).room?.inPast, true);
  chats.event(chat, created(11));
  chats.event(chat, edited(12, 3, "changed in the past"));
  assert.deepEqual(lines(chat).map(({ text }) => text), ["m2", "changed in the past", "m4"]);
  assert.deepEqual(chats.older(chat), [history({ before_seq: 2 })]);
  answer(chat, history({ before_seq: 2 }), { messages: [message(1)], has_more: false, last_seq: 12 });
  assert.deepEqual(chats.newer(chat), [around(4, 100)]);
  answer(chat, around(4, 100), { messages: [3, 4, 5, 6, 7, 8, 9].map((seq) => message(seq)), has_more: true, last_seq: 12 });
  assert.deepEqual(lines(chat).map(({ seq }) => seq), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  assert.equal(view("Ada", chat, idle).room?.inPast, false);
});

test("back to the newest forgets the past, and what changes there", () => {
  const chat = talking();
  chats.jump(chat, "r", 3);
  answer(chat, { type: "history.get", data: { room_id: "r", around_seq: 3, limit: 50 } }, { messages: [2, 3, 4].map((seq) => message(seq)), has_more: true, last_seq: 10 });
  chats.newest(chat.rooms.get("r")!);
  chats.event(chat, reacted(11, 3, "bob", "🎉", true, 1));
  assert.deepEqual(lines(chat).map(({ seq }) => seq), [9, 10]);
  assert.equal(position(chat), 11);
});

test("pins and title that were read before an event came are made good", () => {
  const chat = talking();
  const pins = () => view("Ada", chat, idle).room?.pins.map(({ seq }) => seq);
  chats.event(chat, { type: "message.pinned", room_id: "r", seq: 11, ts: AT, data: { message_seq: 10 } });
  chats.event(chat, { type: "room.updated", room_id: "r", seq: 12, ts: AT, data: { title: "New", actor_id: "bob" } });
  answer(chat, { type: "room.get", data: { room_id: "r" } }, { room: room({ last_seq: 10, title: "Old", pins: [{ message_seq: 9 }] }) });
  assert.deepEqual([pins(), chat.rooms.get("r")?.title], [[10, 9], "New"]);
  answer(chat, { type: "room.get", data: { room_id: "r" } }, { room: room({ last_seq: 14, title: "Newest", pins: [] }) });
  chats.event(chat, { type: "message.pinned", room_id: "r", seq: 13, ts: AT, data: { message_seq: 9 } });
  assert.deepEqual([pins(), chat.rooms.get("r")?.title], [[], "Newest"]);
});

test("a new picture leaves the title, and both stand in the history", () => {
  const chat = talking();
  const lines = () => view("Ada", chat, idle).lines.filter(({ kind }) => kind === "system").map(({ text }) => text);
  const updated = (seq: number, data: object) => chats.event(chat, { type: "room.updated", room_id: "r", seq, ts: AT, data: { ...data, actor_id: "bob" } });
  updated(11, { title: "Tea" });
  updated(12, { picture: "https://caffis.example/mill.jpg" });
  assert.equal(chat.rooms.get("r")?.title, "Tea");
  updated(13, { title: null, picture: null });
  assert.equal(chat.rooms.get("r")?.title, null);
  assert.deepEqual(lines().slice(-3), ["Bob named the room Tea", "Bob changed the room's picture", "Bob took the room's name away · Bob took the room's picture away"]);
});
