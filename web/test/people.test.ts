import assert from "node:assert/strict";
import { test } from "node:test";
import * as chats from "../src/chat";
import type { Chat } from "../src/chat";
import { idle, step } from "../src/connection";
import type { Frame, Request, Room } from "../src/protocol";
import { view } from "../src/view";
import { AT, answer, created, history, lines, message, of, room, talking } from "./support";

const shown = (chat: Chat, now = 0) => view("Ada", chat, { ...idle, phase: "ready" }, now);
const typing = (...user_ids: string[]): Frame => ({ type: "typing.updated", room_id: "r", data: { user_ids } });
const receipt = (user_id: string, delivered_seq: number, read_seq: number): Frame => ({ type: "receipt.updated", room_id: "r", data: { user_id, delivered_seq, read_seq } });
const unknown = (chat: Chat, request: Request) => chats.reply(chat, request, { type: "error", error: { code: "unknown_type", message: "", temporary: false } });
const receipts = (all: Request[]) => all.filter(({ type }) => type.startsWith("receipt."));

/** Ada, who owns it, Bob and Cy in a group. */
function group(more: Partial<Room> = {}): Chat {
  const chat = chats.empty("ada");
  const members = [{ user_id: "ada", name: "Ada", role: "owner" as const }, { user_id: "bob", name: "Bob", role: "admin" as const }, { user_id: "cy", name: "Cy", role: "member" as const }];
  chats.ready(chat, { epoch: "e1", rooms: [room({ kind: "group", members, member_count: 3, recovered: false, reason: "not_requested", ...more })] });
  chats.open(chat, "r");
  answer(chat, history({ before_seq: 11 }), { messages: [message(9), message(10)], has_more: true, last_seq: 10 });
  return chat;
}

test("typing is told at most once in its time, and its end at once", () => {
  const chat = talking();
  chat.limits = { ping_interval_ms: 1, ping_timeout_ms: 1, typing_interval_ms: 3000 };
  const start = [{ type: "typing.start", data: { room_id: "r" } }];
  assert.deepEqual(chats.typing(chat, true, 1_000), start);
  assert.deepEqual(chats.typing(chat, true, 3_999), []);
  assert.deepEqual(chats.typing(chat, true, 4_000), start);
  assert.deepEqual(chats.typing(chat, false, 4_100), [{ type: "typing.stop", data: { room_id: "r" } }]);
  assert.deepEqual(chats.typing(chat, false, 4_200), []);
  assert.deepEqual(chats.typing(chat, true, 4_300), [], "not before its time");
  assert.deepEqual(of(chats.pulse(chat, 6_999), "typing.start"), []);
  assert.deepEqual(of(chats.pulse(chat, 7_000), "typing.start"), start, "also if no further key is pressed");
  assert.deepEqual(of(chats.pulse(chat, 99_000), "typing.start"), []);
});

test("who types is shown until they stop, write, or the connection ends", () => {
  const chat = group();
  chats.event(chat, typing("ada", "bob"));
  assert.equal(shown(chat).room?.typing, "Bob is typing …");
  chats.event(chat, typing("bob", "cy"));
  assert.equal(shown(chat).room?.typing, "Bob and Cy are typing …");
  chats.event(chat, created(11));
  assert.equal(shown(chat).room?.typing, "Cy is typing …");
  chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 11, recovered: true })] });
  assert.equal(shown(chat).room?.typing, "");
});

test("presence is asked for once, again before it ends, and after each ready", () => {
  const chat = talking();
  const asked = [{ type: "presence.subscribe", data: { user_ids: ["bob"] } }];
  const ask = (now: number) => of(chats.pulse(chat, now), "presence.subscribe");
  assert.deepEqual(ask(0), asked);
  assert.deepEqual(ask(10 * 60_000), []);
  assert.deepEqual(ask(13 * 60_000), asked);
  chats.ready(chat, { epoch: "e1", rooms: [room({ recovered: true })] });
  assert.deepEqual(ask(13 * 60_000), asked);
});

test("how somebody is seen is shown in words", () => {
  const chat = talking();
  const subtitle = (state: string, last_seen_at?: string) => {
    chats.event(chat, { type: "presence.updated", data: { users: [{ user_id: "bob", state, last_seen_at }] } });
    return shown(chat, Date.parse(AT)).room?.subtitle;
  };
  assert.equal(subtitle("online"), "online");
  assert.equal(shown(chat).rooms[0]?.presence, "online");
  assert.equal(subtitle("offline", "2030-01-01T11:48:00.000Z"), "last seen 12 min ago");
  assert.equal(subtitle("offline", "2030-01-01T09:00:00.000Z"), "last seen 3 h ago");
  assert.equal(subtitle("offline"), "offline");
});

test("a hidden page is away, unless the user said otherwise", () => {
  const chat = talking();
  const set = () => of(chats.pulse(chat, 0), "presence.set").map((one) => one.type === "presence.set" && one.data.state);
  assert.deepEqual(set(), []);
  chat.looking = false;
  assert.deepEqual([set(), set()], [["away"], []]);
  chat.state = "invisible";
  assert.deepEqual(set(), ["invisible"]);
  chats.ready(chat, { epoch: "e1", rooms: [] });
  assert.deepEqual(set(), ["invisible"], "a new connection is online until it says so");
});

test("what is paused is said", () => {
  const chat = talking();
  chats.ready(chat, { epoch: "e1", paused: ["typing", "presence"], rooms: [room({ recovered: true })] });
  assert.equal(shown(chat).paused, "The server is busy: no typing, presence for now");
});

test("ticks follow the least of the others' watermarks, which only advance", () => {
  const chat = group();
  chats.event(chat, created(11, { sender_id: "ada" }));
  const state = () => lines(chat).at(-1)?.state;
  assert.equal(state(), "sent");
  chats.event(chat, receipt("bob", 11, 11));
  assert.equal(state(), "sent");
  chats.event(chat, receipt("cy", 11, 10));
  assert.equal(state(), "delivered");
  chats.event(chat, receipt("cy", 11, 11));
  assert.equal(state(), "read");
  chats.event(chat, receipt("cy", 5, 5));
  assert.equal(state(), "read");
  chats.ready(chat, { epoch: "e1", rooms: [room({ last_seq: 11, recovered: true, watermarks: [{ user_id: "cy", read_seq: 1, delivered_seq: 1 }] })] });
  assert.equal(state(), "read");
});

test("who writes has read what stands above", () => {
  const chat = talking();
  chats.event(chat, created(11, { sender_id: "ada" }));
  chats.event(chat, created(12, { sender_id: "ada" }));
  assert.deepEqual(lines(chat).slice(-2).map(({ state }) => state), ["sent", "sent"]);
  chats.event(chat, created(13));
  chats.event(chat, created(14, { sender_id: "ada" }));
  assert.deepEqual(lines(chat).slice(-4).map(({ state }) => state), ["read", "read", undefined, "sent"]);
});

test("what was received and read is told together, and nothing twice", () => {
  const chat = talking();
  chats.event(chat, created(11));
  assert.deepEqual(receipts(chats.pulse(chat, 10_000)), [{ type: "receipt.delivered", data: { rooms: { r: 11 } } }]);
  chats.event(chat, created(12));
  chats.event(chat, created(13));
  chats.read(chat, 12);
  assert.deepEqual(receipts(chats.pulse(chat, 10_500)), [], "at most once a second");
  assert.deepEqual(receipts(chats.pulse(chat, 11_000)), [{ type: "receipt.delivered", data: { rooms: { r: 13 } } }, { type: "receipt.read", data: { rooms: { r: 12 } } }]);
  chats.read(chat, 13);
  assert.deepEqual(receipts(chats.pulse(chat, 12_000)), [{ type: "receipt.read", data: { rooms: { r: 13 } } }]);
  assert.deepEqual(receipts(chats.pulse(chat, 13_000)), []);
});

test("what another device has read is read here", () => {
  const chat = talking();
  chat.looking = false;
  chats.event(chat, created(11));
  chats.event(chat, created(12));
  chats.event(chat, { type: "unread.updated", data: { room_id: "r", read_seq: 11, unread: 1 } });
  assert.equal(shown(chat).unread, 1);
  chats.event(chat, { type: "unread.updated", data: { room_id: "r", read_seq: 12, unread: 0, muted_until: "2031-01-01T00:00:00.000Z" } });
  assert.equal(shown(chat).unread, 0);
  assert.equal(shown(chat, Date.parse(AT)).rooms[0]?.muted, true);
});

test("above what is new stands a line, until the room is left or one answers", () => {
  const chat = talking();
  const divided = () => shown(chat).lines.findIndex(({ kind }) => kind === "new");
  chat.looking = false;
  chats.read(chat, 10);
  chats.event(chat, created(11, { sender_id: "ada" }));
  chats.event(chat, created(12));
  chats.event(chat, created(13));
  assert.equal(shown(chat).lines[divided() + 1]?.seq, 12);
  chat.looking = true;
  chats.read(chat, 13);
  assert.equal(shown(chat).lines[divided() + 1]?.seq, 12, "it stays while one reads");
  chats.send(chat, { text: "x" }, "x", AT);
  assert.equal(divided(), -1);
});

test("who is mentioned sees it in the list", () => {
  const chat = group();
  chat.looking = false;
  chats.event(chat, created(11, { mentions: ["cy"] }));
  assert.equal(shown(chat).rooms[0]?.named, false);
  chats.event(chat, created(12, { mentions: ["all"] }));
  assert.equal(shown(chat).rooms[0]?.named, true);
  chat.looking = true;
  chats.read(chat, 12);
  assert.equal(shown(chat).rooms[0]?.named, false);
});

test("messages of somebody blocked are folded in groups, and one does not talk to them alone", () => {
  const chat = group();
  chats.reply(chat, { type: "user.blocks", data: {} }, { type: "ack", data: { users: [{ user_id: "bob", name: "Bob", state: "" }] } });
  assert.equal(lines(chat)[0]?.folded, true);
  assert.equal(shown(chat).rooms[0]?.preview, "Message of somebody you blocked");
  chats.event(chat, typing("bob"));
  assert.equal(shown(chat).room?.typing, "");
  chats.event(chat, { type: "user.blocks.updated", data: { user_id: "bob", blocked: false } });
  assert.equal(lines(chat)[0]?.folded, false);
  assert.deepEqual(chats.event(chat, { type: "user.blocks.updated", data: {} }), [{ type: "user.blocks", data: {} }]);
  const direct = talking();
  answer(direct, { type: "user.block", data: { user_id: "bob" } }, { user_id: "bob", blocked: true, changed: true });
  assert.equal(shown(direct).room?.blocked, "bob");
});

test("roles decide what is offered", () => {
  const chat = group();
  const can = (id: string) => shown(chat).room?.people.find((one) => one.id === id)?.can;
  assert.deepEqual([can("bob")?.demote, can("cy")?.promote, can("cy")?.remove, can("ada")?.remove], [true, true, true, false]);
  assert.deepEqual(shown(chat).room?.mentions.map(({ id }) => id), ["bob", "cy", "all"]);
  chats.event(chat, { type: "member.role_changed", room_id: "r", seq: 11, ts: AT, data: { user_id: "ada", role: "member", actor_id: "bob" } });
  assert.deepEqual([can("bob")?.demote, can("cy")?.remove], [false, false]);
  assert.deepEqual(shown(chat).room?.mentions.map(({ id }) => id), ["bob", "cy"]);
  assert.equal(lines(chat)[0]?.can?.remove, false);
});

test("muted and archived rooms are told apart, and a message of a person brings an archived one back", () => {
  const chat = talking();
  answer(chat, { type: "room.archive", data: { room_id: "r", archived: true } }, { changed: true });
  assert.deepEqual([shown(chat).rooms.length, shown(chat).away.length], [0, 1]);
  chats.event(chat, created(11));
  assert.deepEqual([shown(chat).rooms.length, shown(chat).away.length], [1, 0]);
  answer(chat, { type: "room.mute", data: { room_id: "r" } }, { changed: true });
  answer(chat, { type: "room.archive", data: { room_id: "r", archived: true } }, { changed: true });
  chats.event(chat, created(12));
  assert.deepEqual([shown(chat).rooms.length, shown(chat).away[0]?.muted], [0, true]);
  answer(chat, { type: "room.mute", data: { room_id: "r", until: null } }, { changed: true });
  assert.equal(shown(chat).away[0]?.muted, false);
});

test("what the server does not know is not offered, and not asked again", () => {
  const chat = talking();
  assert.deepEqual([shown(chat).canSearch, shown(chat).room?.canBlock], [false, false], "not before it has answered");
  unknown(chat, { type: "search", data: { query: "" } });
  unknown(chat, { type: "user.blocks", data: {} });
  unknown(chat, { type: "receipt.delivered", data: { rooms: {} } });
  unknown(chat, { type: "presence.subscribe", data: { user_ids: [] } });
  unknown(chat, { type: "typing.start", data: { room_id: "r" } });
  chats.event(chat, created(11));
  chats.read(chat, 11);
  assert.deepEqual(chats.pulse(chat, 99_000), []);
  assert.deepEqual(chats.typing(chat, true, 0), []);
  assert.deepEqual([shown(chat).room?.canMute, shown(chat).canArchive, shown(chat).canSearch], [false, false, false]);
  assert.equal(shown(chat).unread, 0, "read is read here all the same");
  chats.reply(chat, { type: "search", data: { query: "" } }, { type: "error", error: { code: "bad_request", message: "", temporary: false } });
  answer(chat, { type: "user.blocks", data: {} }, { users: [] });
  assert.deepEqual([shown(chat).canSearch, shown(chat).room?.canBlock], [true, true]);
});

test("hits are those of the last question, page by page, and open where they stand", () => {
  const chat = talking();
  const hit = (seq: number) => ({ room_id: "r", message: message(seq) });
  const seqs = () => shown(chat).found?.hits.map(({ seq }) => seq);
  chats.search(chat, "ri");
  const [asked] = chats.search(chat, "river", "r");
  answer(chat, { type: "search", data: { query: "ri" } }, { hits: [hit(1)] });
  assert.deepEqual([seqs(), shown(chat).found?.busy], [[], true]);
  answer(chat, asked!, { hits: [hit(10), hit(4)], has_more: true, next_before: "x" });
  assert.deepEqual([seqs(), shown(chat).found?.more], [[10, 4], true]);
  const [more] = chats.searchOn(chat);
  assert.deepEqual(more, { type: "search", data: { query: "river", room_id: "r", before: "x" } });
  assert.deepEqual(chats.searchOn(chat), [], "one page at a time");
  answer(chat, more!, { hits: [hit(3)], has_more: false });
  assert.deepEqual([seqs(), shown(chat).found?.more], [[10, 4, 3], false]);
  assert.deepEqual(chats.visit(chat, "r", 10), []);
  assert.deepEqual(of(chats.visit(chat, "r", 4), "history.get").length, 1);
});

test("the first receipt of a connection has an id, so that a server that does not know it says so", () => {
  const ask = (type: "receipt.read" | "typing.start"): Request => (type === "receipt.read" ? { type, data: { rooms: {} } } : { type, data: { room_id: "r" } });
  let state = { ...idle, phase: "ready" as const };
  const ids = [ask("receipt.read"), ask("receipt.read"), ask("typing.start"), ask("receipt.read")].map((request) => {
    const [next, [effect]] = step(state, { on: "request", request, now: 0, random: 0 });
    state = next as typeof state;
    return effect?.do === "send" ? effect.id : NaN;
  });
  assert.deepEqual(ids, [1, undefined, 2, undefined]);
});

test("members beyond the preview come page by page, and a later preview does not take them away", () => {
  const many = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => ({ user_id: `u${from + index}`, name: `U${from + index}` }));
  const chat = group({ members: many(0, 100), member_count: 150 });
  const list: Request = { type: "room.members.list", data: { room_id: "r" } };
  assert.deepEqual([shown(chat).room?.people.length, shown(chat).room?.more], [100, true]);
  answer(chat, list, { members: many(0, 100), next_cursor: "c" });
  assert.equal(chat.rooms.get("r")?.membersCursor, "c");
  answer(chat, { type: "room.members.list", data: { room_id: "r", cursor: "c" } }, { members: many(100, 150) });
  assert.deepEqual([shown(chat).room?.people.length, shown(chat).room?.more], [150, false]);
  answer(chat, { type: "rooms.list", data: {} }, { rooms: [room({ kind: "group", members: many(0, 100), member_count: 150 })] });
  assert.equal(shown(chat).room?.people.length, 150);
  unknown(chat, list);
  assert.equal(shown(chat).room?.more, false);
});

test("a report is thanked for, and leaves nothing behind", () => {
  const chat = talking();
  const [report] = chats.changeMessage(chat, { type: "message.report", data: { room_id: "r", message_seq: 10 } });
  answer(chat, report!, { message_seq: 10, changed: true, seq: 10 });
  assert.deepEqual([chat.notice, chat.ops], ["Reported. Thank you.", []]);
});
