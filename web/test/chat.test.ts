import assert from "node:assert/strict";
import { test } from "node:test";
import * as chats from "../src/chat";
import { idle } from "../src/connection";
import type { Request } from "../src/protocol";
import { view } from "../src/view";
import { AT, acked, answer, created, history, lines, message, of, position, room, send, sends, talking, texts } from "./support";

test("a room that was not held is taken from its last_seq, and nothing is caught up", () => {
  const chat = chats.empty("ada", []);
  const requests = chats.ready(chat, { epoch: "e1", rooms: [room({ recovered: false, reason: "not_requested" })] });
  assert.deepEqual(of(requests, "history.get"), []);
  assert.deepEqual(of(requests, "rooms.list").length, 1);
  assert.deepEqual(chats.resume(chat), { epoch: "e1", rooms: { r: 10 } });
});

test("events move the position one by one, and old ones are ignored", () => {
  const chat = talking();
  for (const seq of [11, 11, 10, 12, 11]) assert.deepEqual(chats.event(chat, created(seq)), []);
  assert.deepEqual(texts(chat), ["m9", "m10", "m11", "m12"]);
  assert.equal(position(chat), 12);
});

test("an own send stands once: pending, then acked, then as its event", () => {
  const chat = talking();
  assert.deepEqual(sends(send(chat, "a")), ["a"]);
  const state = () => lines(chat).at(-1)?.state;
  assert.equal(state(), "sending");
  acked(chat, "a", 11);
  assert.equal(state(), "sent");
  chats.event(chat, created(11, { sender_id: "ada", client_msg_id: "a", text: "a" }));
  assert.deepEqual(texts(chat), ["m9", "m10", "a"]);
  assert.equal(state(), "sent");
});

test("an own send stands once when the event is before the ack, too", () => {
  const chat = talking();
  send(chat, "a");
  chats.event(chat, created(11, { sender_id: "ada", client_msg_id: "a", text: "a" }));
  acked(chat, "a", 11);
  assert.deepEqual(texts(chat), ["m9", "m10", "a"]);
});

test("a room has one send in flight, so that a retry cannot overtake", () => {
  const chat = talking();
  assert.deepEqual(sends([...send(chat, "a"), ...send(chat, "b")]), ["a"]);
  const request: Request = { type: "message.send", data: { room_id: "r", client_msg_id: "a", kind: "text", text: "a" } };
  const error = { code: "rate_limited", message: "", temporary: true };
  assert.deepEqual(sends(chats.reply(chat, request, { type: "error", error })), []);
  assert.deepEqual(sends(chats.again(chat, request)), ["a"]);
  assert.deepEqual(sends(acked(chat, "a", 11)), ["b"]);
});

test("unacked sends are sent again with their ids after ready, acked ones are not", () => {
  const chat = talking();
  send(chat, "a"), acked(chat, "a", 11);
  send(chat, "b"), send(chat, "c");
  const requests = chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 10, recovered: true })] });
  assert.deepEqual(sends(requests), ["b"]);
  assert.deepEqual(sends(acked(chat, "b", 12)), ["c"]);
});

test("a retry whose first try was stored before this page knew the room is shown once, by history", () => {
  const chat = chats.empty("ada", [{ room_id: "r", client_msg_id: "a", text: "a", created_at: AT, sending: true }]);
  assert.deepEqual(sends(chats.ready(chat, { epoch: "e1", rooms: [room()] })), ["a"]);
  acked(chat, "a", 4);
  assert.deepEqual(chat.outbox, []);
});

test("a refusal for good is shown and not retried, and the next one goes", () => {
  const chat = talking();
  send(chat, "a"), send(chat, "b");
  const request: Request = { type: "message.send", data: { room_id: "r", client_msg_id: "a", kind: "text", text: "a" } };
  const error = { code: "forbidden", message: "not a member", temporary: false };
  assert.deepEqual(sends(chats.reply(chat, request, { type: "error", error })), ["b"]);
  assert.equal(lines(chat).at(-2)?.error, "Not sent: not a member");
  assert.deepEqual(sends(chats.ready(chat, { epoch: "e1", rooms: [room({ recovered: true })] })), ["b"]);
});

test("what could not be recovered is pulled page by page; live events wait for the position", () => {
  const chat = talking();
  const requests = chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 500, recovered: false, reason: "too_much" })] });
  assert.deepEqual(of(requests, "history.get"), [history({ after_seq: 10 })]);
  chats.event(chat, created(501));
  assert.equal(position(chat), 10);
  const first = answer(chat, history({ after_seq: 10 }), { messages: [message(11)], has_more: true, next_after_seq: 400, last_seq: 501 });
  assert.deepEqual(first, [history({ after_seq: 400 })]);
  assert.equal(position(chat), 10, "what changed before 400 and again after it is still to come");
  chats.event(chat, created(502));
  const last = answer(chat, history({ after_seq: 400 }), { messages: [message(450), message(501)], has_more: false, next_after_seq: 501, last_seq: 501 });
  assert.deepEqual(of(last, "history.get"), []);
  assert.equal(position(chat), 502);
  assert.deepEqual(texts(chat), ["m9", "m10", "m11", "m450", "m501", "m502"]);
});

test("a connection that ends while catching up resumes from the position reached", () => {
  const chat = talking();
  chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 500, recovered: false, reason: "too_much" })] });
  chats.event(chat, created(501));
  assert.equal(position(chat), 10);
  chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 501, recovered: true })] });
  for (let seq = 11; seq <= 501; seq++) chats.event(chat, created(seq));
  assert.equal(position(chat), 501);
  assert.equal(texts(chat).length, 2 + 491);
});

test("a hole in the events, and room.gap, are caught up once", () => {
  const chat = talking();
  assert.deepEqual(chats.event(chat, created(13)), [history({ after_seq: 10 })]);
  assert.deepEqual(chats.event(chat, created(14)), []);
  assert.deepEqual(chats.event(chat, { type: "room.gap", room_id: "r", data: { last_seq: 14 } }), []);
  answer(chat, history({ after_seq: 10 }), { messages: [11, 12, 13].map((seq) => message(seq)), has_more: false, next_after_seq: 13, last_seq: 13 });
  assert.equal(position(chat), 10, "the gap was up to 14");
  answer(chat, history({ after_seq: 13 }), { messages: [message(14)], has_more: false, next_after_seq: 14, last_seq: 14 });
  assert.equal(position(chat), 14);
  assert.deepEqual(texts(chat), ["m9", "m10", "m11", "m12", "m13", "m14"]);
  assert.deepEqual(chats.event(chat, { type: "room.gap", room_id: "r", data: { last_seq: 20 } }), [history({ after_seq: 14 })]);
});

test("another epoch discards what is held, but not what is unsent", () => {
  const chat = talking();
  send(chat, "a");
  const requests = chats.ready(chat, { epoch: "e2", rooms: [room({ last_seq: 3, recovered: false, reason: "epoch_changed" })] });
  assert.deepEqual(chats.resume(chat), { epoch: "e2", rooms: { r: 3 } });
  assert.deepEqual(of(requests, "history.get"), [history({ before_seq: 4 })]);
  assert.deepEqual(sends(requests), ["a"]);
  assert.deepEqual(texts(chat), ["a"]);
});

test("a position that the server does not have is dropped, a room that is not ours too", () => {
  const chat = talking();
  chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 7, recovered: false, reason: "ahead_of_server" })] });
  assert.equal(position(chat), 7);
  chats.ready(chat, { epoch: "e1", rooms: [room({ recovered: false, reason: "not_a_member" })] });
  assert.equal(chats.resume(chat), undefined);
});

test("a state is applied only if it is newer, whatever comes first", () => {
  const chat = talking();
  const edited = message(10, { text: "edited", changed_seq: 12, edited_at: AT });
  chats.event(chat, created(11));
  chats.event(chat, { type: "message.updated", room_id: "r", seq: 12, ts: AT, data: { message: edited, message_seq: 10 } });
  answer(chat, history({ before_seq: 11 }), { messages: [message(9), message(10)], has_more: true, last_seq: 12 });
  assert.deepEqual(texts(chat), ["m9", "edited", "m11"]);
  chats.event(chat, { type: "message.deleted", room_id: "r", seq: 13, ts: AT, data: { message_seq: 10 } });
  assert.deepEqual(texts(chat), ["m9", "This message was deleted", "m11"]);
});

test("a page read before an event that has come meanwhile is made good", () => {
  const chat = talking();
  const [older] = chats.older(chat);
  assert.deepEqual(older, history({ before_seq: 9 }));
  assert.deepEqual(chats.older(chat), [], "one page at a time");
  chats.event(chat, { type: "message.deleted", room_id: "r", seq: 11, ts: AT, data: { message_seq: 8 } });
  assert.deepEqual(texts(chat), ["m9", "m10"], "not below the oldest page");
  const repair = answer(chat, history({ before_seq: 9 }), { messages: [message(8)], has_more: false, last_seq: 10 });
  assert.deepEqual(repair, [history({ after_seq: 10 })]);
  answer(chat, history({ after_seq: 10 }), { messages: [message(8, { changed_seq: 11, deleted_at: AT })], has_more: false, next_after_seq: 11, last_seq: 11 });
  assert.deepEqual(texts(chat), ["This message was deleted", "m9", "m10"]);
  assert.deepEqual(chats.older(chat), [], "the beginning is reached");
});

test("a room that is added, or heard of first by an event, appears", () => {
  const chat = chats.empty("ada", []);
  chats.event(chat, { type: "room.added", room_id: "r", data: { room: room({ last_seq: 1 }), last_seq: 1, read_seq: 0 } });
  chats.event(chat, created(2));
  assert.equal(position(chat), 2);
  assert.deepEqual(view("Ada", chat, idle).rooms.map((row) => [row.title, row.preview, row.unread]), [["Bob", "m2", 1]]);
  assert.deepEqual(chats.event(chat, { ...created(7), room_id: "other" }), [{ type: "rooms.list", data: {} }]);
  assert.equal(chats.resume(chat)?.rooms["other"], 7);
  chats.event(chat, { type: "room.removed", data: { room_id: "r" } });
  assert.equal(position(chat), undefined);
});

test("the answer to room.create opens the room and does not turn its position back", () => {
  const chat = chats.empty("ada", []);
  chats.event(chat, { type: "room.added", room_id: "r", data: { room: room({ last_seq: 1 }), last_seq: 1 } });
  chats.event(chat, created(2));
  const request: Request = { type: "room.create", data: { kind: "direct", member_ids: ["bob"], client_room_id: "c" } };
  assert.deepEqual(of(answer(chat, request, { room: room({ last_seq: 1 }) }), "history.get"), []);
  assert.equal(chat.open, "r");
  assert.equal(position(chat), 2);
});

test("unread counts others' messages, live and caught up, until they are seen", () => {
  const chat = talking();
  chat.looking = false;
  const unread = () => view("Ada", chat, idle).rooms[0]?.unread;
  chats.event(chat, created(11, { sender_id: "ada" }));
  assert.equal(unread(), 0, "who answers has read");
  chats.event(chat, created(12));
  assert.equal(unread(), 1);
  chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 15, read_seq: 11, unread: 3, recovered: false, reason: "too_much" })] });
  answer(chat, history({ after_seq: 12 }), { messages: [message(9, { changed_seq: 14 }), message(13), message(15)], has_more: false, next_after_seq: 15, last_seq: 15 });
  assert.equal(unread(), 3, "each once; an old one that changed is not new");
  chats.read(chat, 15);
  assert.equal(unread(), 3, "the page is hidden");
  chat.looking = true;
  chats.read(chat, 13);
  assert.equal(unread(), 1);
  chats.read(chat, 15);
  assert.equal(unread(), 0);
});

test("members who come and go are told in small lines, live and from history alike", () => {
  const chat = talking();
  const joined = { user_id: "cy", name: "Cy", role: "member" as const, actor_id: "bob" };
  chats.event(chat, { type: "member.joined", room_id: "r", seq: 11, ts: AT, data: joined });
  chats.event(chat, { type: "member.left", room_id: "r", seq: 12, ts: AT, data: { user_id: "cy", actor_id: "cy" } });
  assert.deepEqual(texts(chat).slice(2), ["Bob added Cy", "Cy left"]);
  const system = message(8, { kind: "system", sender_id: null, text: null, event: { type: "member.joined", ...joined, actor_id: "cy" } });
  answer(chat, history({ before_seq: 9 }), { messages: [system], has_more: false, last_seq: 12 });
  assert.deepEqual(texts(chat)[0], "Cy joined");
});

test("one event makes every message of an erased user a tombstone, live and caught up alike", () => {
  const erased = { user_id: "bob", erased_as: "nobody", deleted_at: AT, reactions: [{ message_seq: 12, emoji: "👍", count: 1 }, { message_seq: 12, emoji: "🎉", count: 0 }], reactions_more: false };
  const own = () => message(12, { sender_id: "ada", text: "mine", mentions: ["bob"], reactions: { "👍": { count: 2 }, "🎉": { count: 1 } } });
  const check = (chat: ReturnType<typeof talking>, seq: number) => {
    const held = chat.rooms.get("r")!;
    const [theirs, mine] = [held.messages.get(11)!, held.messages.get(12)!];
    assert.equal(theirs.text, "");
    assert.deepEqual([theirs.sender_id, theirs.deleted_at, theirs.changed_seq], ["nobody", AT, 11]);
    assert.deepEqual([mine.text, mine.mentions, mine.reactions, mine.changed_seq], ["mine", [], { "👍": { count: 1 } }, seq]);
    assert.ok(!held.members?.some(({ user_id }) => user_id === "bob"));
    assert.equal(texts(chat).at(-1), "Somebody deleted their account");
    assert.ok(!chat.names.has("bob"));
  };
  const live = talking();
  chats.event(live, { type: "message.created", room_id: "r", seq: 11, ts: AT, data: { message: message(11, { sender_id: "bob", text: "theirs" }) } });
  chats.event(live, { type: "message.created", room_id: "r", seq: 12, ts: AT, data: { message: own() } });
  chats.event(live, { type: "user.erased", room_id: "r", seq: 13, ts: AT, data: erased });
  check(live, 13);
  // Somebody who missed it: the page has what it changed of others, and itself.
  const late = talking();
  chats.event(late, { type: "message.created", room_id: "r", seq: 11, ts: AT, data: { message: message(11, { sender_id: "bob", text: "theirs" }) } });
  chats.event(late, { type: "message.created", room_id: "r", seq: 12, ts: AT, data: { message: own() } });
  chats.event(late, { type: "room.gap", room_id: "r", data: { last_seq: 13 } });
  const system = message(13, { kind: "system", sender_id: "nobody", text: null, event: { type: "user.erased", ...erased } });
  const changed = { ...own(), mentions: [], reactions: { "👍": { count: 1 } }, changed_seq: 13 };
  answer(late, history({ after_seq: 12 }), { messages: [changed, system], has_more: false, last_seq: 13, next_after_seq: 13 });
  check(late, 13);
});

test("the beginning of a room is a system line, live and from history alike", () => {
  const chat = chats.empty("ada", []);
  chats.event(chat, { type: "room.added", data: { room: room({ last_seq: 0 }), last_seq: 0 } });
  chats.event(chat, { type: "room.created", room_id: "r", seq: 1, ts: AT, data: { room: room({ last_seq: 1 }) } });
  chats.open(chat, "r");
  assert.deepEqual(texts(chat), ["The conversation begins"]);
  assert.deepEqual(view("Ada", chat, idle).rooms.map((row) => [row.preview, row.unread]), [["The conversation begins", 0]]);
});

test("a page that was refused for now can be asked for again", () => {
  const chat = talking();
  const [request] = chats.older(chat);
  const error = { code: "unavailable", message: "", temporary: true };
  assert.deepEqual(chats.reply(chat, request!, { type: "error", error }), []);
  assert.deepEqual(chats.again(chat, request!), [request]);
});
