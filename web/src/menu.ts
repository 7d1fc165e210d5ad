// The menu of a message and the emojis: one of each, put beside what opened it, for the keyboard too.
//
// Next: composer.ts.
import { button, get, make } from "./dom";

export interface Item { label: string; act: () => void; /** What must be said yes to. */ sure?: string; danger?: boolean }

export const QUICK = ["👍", "❤️", "😂", "😮", "😢", "🙏"];
const EMOJIS = [
  ...QUICK, "🎉", "👏", "🔥", "💯", "✅", "❌", "👀", "🤔", "🙌", "💪", "🤝", "👋", "👌", "🤷", "🤦", "😀", "😄", "😅", "🤣", "😊", "😍", "😘", "😎", "🤩", "😴", "😬",
  "😡", "😱", "🥳", "🥲", "😇", "🤗", "☕", "🍰", "🍕", "🍺", "🥂", "🌞", "🌧️", "🌈", "⭐", "💡", "📍", "🎂", "🚲", "🐱", "🐶", "🌱",
];
const COLUMNS = 8;

let opener: HTMLElement | undefined;

function show(popup: HTMLElement, from: HTMLElement): void {
  popup.hidePopover?.();
  opener = from;
  popup.showPopover();
  const [place, size] = [from.getBoundingClientRect(), popup.getBoundingClientRect()];
  const below = place.bottom + size.height + 8 < innerHeight;
  const top = below ? place.bottom + 4 : Math.max(8, place.top - size.height - 4);
  const left = Math.min(Math.max(8, place.right - size.width), innerWidth - size.width - 8);
  Object.assign(popup.style, { top: `${top}px`, left: `${Math.max(8, left)}px` });
  popup.querySelector<HTMLElement>("button")?.focus();
}

function hide(popup: HTMLElement): void {
  popup.hidePopover();
  if (opener?.isConnected) opener.focus({ preventScroll: true });
}

/** Arrow keys; `columns` of them stand in a row. */
function keys(popup: HTMLElement, columns: number): void {
  popup.onkeydown = (event) => {
    const all = [...popup.querySelectorAll<HTMLElement>("button")];
    const at = all.indexOf(document.activeElement as HTMLElement);
    const steps: Record<string, number> = { ArrowDown: columns, ArrowUp: -columns, ArrowRight: 1, ArrowLeft: -1, Home: -at, End: all.length - 1 - at };
    if (event.key === "Escape" || event.key === "Tab") return event.preventDefault(), event.stopPropagation(), hide(popup);
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const next = columns === 1 ? (at + step + all.length) % all.length : Math.min(all.length - 1, Math.max(0, at + step));
    all[next]?.focus();
  };
}

export function openMenu(from: HTMLElement, items: Item[], react?: (emoji: string) => void): void {
  const popup = get("menu");
  const quick = react && make("div", "quick", ...QUICK.map((emoji) => entry(emoji, () => react(emoji))), entry("More emojis", () => openPicker(from, react), "+"));
  popup.replaceChildren(...(quick ? [quick] : []), ...items.map((item) => {
    let isSure = !item.sure;
    const element = button(item.danger ? "plain danger" : "plain", item.label, () => {
      if (!isSure) return [isSure, element.textContent] = [true, item.sure ?? ""];
      hide(popup);
      item.act();
    });
    element.role = "menuitem";
    return element;
  }));
  keys(popup, 1);
  show(popup, from);

  function entry(label: string, act: () => void, text = label): HTMLElement {
    const element = button("plain", label, () => (hide(popup), act()), text);
    element.role = "menuitem";
    return element;
  }
}

export function openPicker(from: HTMLElement, choose: (emoji: string) => void): void {
  const popup = get("picker");
  popup.replaceChildren(...EMOJIS.map((emoji) => button("plain", emoji, () => (hide(popup), choose(emoji)), emoji)));
  keys(popup, COLUMNS);
  show(popup, from);
}
