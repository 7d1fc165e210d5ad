import assert from "node:assert/strict";
import { test } from "node:test";
import { asked, isBig, mentioned, parts } from "../src/text";

const links = (text: string) => parts(text).filter(({ kind }) => kind === "link").map(({ text, href }) => [text, href]);

test("addresses become links, without the punctuation around them", () => {
  assert.deepEqual(links("see https://a.example/x?y=1&z=2#w."), [["https://a.example/x?y=1&z=2#w", "https://a.example/x?y=1&z=2#w"]]);
  assert.deepEqual(links("(https://a.example/b_(c))"), [["https://a.example/b_(c)", "https://a.example/b_(c)"]]);
  assert.deepEqual(links("www.a.example, HTTP://B.example!"), [["www.a.example", "https://www.a.example/"], ["HTTP://B.example", "http://b.example/"]]);
  assert.deepEqual(links("https://müller.example/ü"), [["https://müller.example/ü", "https://xn--mller-kva.example/%C3%BC"]]);
});

test("what only looks like an address, or would do something else, stays text", () => {
  for (const text of ["javascript:alert(1)", "data:text/html,x", "xhttps://", "https://", "http://x", "https://user:pass@a.example", "https://user@a.example/", "file:///etc/passwd", "mailto:a@b.example", "vbscript:x", "ahttps:a"])
    assert.deepEqual(links(text), [], text);
});

test("nothing of a text is lost, whatever is in it", () => {
  for (const text of ["", "a", "<b>x</b> https://a.example/<script> @Bob @Bobby @", "https://a.example/'\"x", "@all www.x.example @all", "\u202Eabc https://a.example"])
    assert.equal(parts(text, ["Bob", "Bobby", "all"]).map((one) => one.text).join(""), text);
  assert.deepEqual(links("https://a.example/<script>"), [["https://a.example/", "https://a.example/"]]);
});

test("of two names the longer one is meant", () => {
  assert.deepEqual(parts("@Ann Lee and @Ann", ["Ann", "Ann Lee"]).map(({ kind, text }) => [kind, text]), [["name", "@Ann Lee"], ["text", " and "], ["name", "@Ann"]]);
});

test("only who is still named is mentioned", () => {
  const chosen = new Map([["Bob", "b"], ["Cy", "c"], ["all", "all"]]);
  assert.deepEqual(mentioned("hi @Bob and @all", chosen), ["b", "all"]);
  assert.deepEqual(mentioned("hi Bob", chosen), []);
});

test("a name is asked for after an @ that begins a word", () => {
  assert.deepEqual(asked("hi @Bo", 6), { at: 3, prefix: "Bo" });
  assert.deepEqual(asked("@", 1), { at: 0, prefix: "" });
  assert.deepEqual(asked("(@Zoë", 5), { at: 1, prefix: "Zoë" });
  assert.equal(asked("a@b", 3), undefined);
  assert.equal(asked("@Bob ", 5), undefined);
});

test("a few emojis alone are big", () => {
  for (const text of ["😀", "👩‍👩‍👧 ❤️", "🇫🇷", "👍🏽🎉☕"]) assert.equal(isBig(text), true, text);
  for (const text of ["", " ", "1", "12", "a😀", "😀😀😀😀", "#"]) assert.equal(isBig(text), false, text);
});
