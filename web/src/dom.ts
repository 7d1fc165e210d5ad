// Elements: making them, and keeping them in step with what is shown.
export const get = <E extends HTMLElement = HTMLElement>(id: string) => document.getElementById(id) as E;
export const clock = (at: string) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

export function day(at: string, now = new Date()): string {
  const date = new Date(at);
  const days = Math.round((new Date(now).setHours(0, 0, 0, 0) - new Date(date).setHours(0, 0, 0, 0)) / 86_400_000);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  const year = date.getFullYear() === now.getFullYear() ? {} : { year: "numeric" as const };
  return date.toLocaleDateString([], { weekday: "long", day: "numeric", month: "long", ...year });
}

export function make<K extends keyof HTMLElementTagNameMap>(tag: K, className: string, ...children: (Node | string | undefined)[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

export function button(className: string, label: string, act: (event: MouseEvent) => void, ...children: (Node | string)[]): HTMLButtonElement {
  const element = make("button", className, ...(children.length ? children : [label]));
  element.type = "button";
  if (children.length) element.ariaLabel = label;
  element.onclick = act;
  return element;
}

/** Text of people, in whatever direction it is written. */
export function said<K extends keyof HTMLElementTagNameMap>(tag: K, className: string, ...children: (Node | string)[]): HTMLElementTagNameMap[K] {
  return Object.assign(make(tag, className, ...children), { dir: "auto" });
}

export function avatar(name: string, presence = ""): HTMLElement {
  const [letter = ""] = new Intl.Segmenter().segment(name)[Symbol.iterator]().next().value?.segment ?? "";
  const element = make("span", "avatar", letter.toUpperCase());
  element.ariaHidden = "true";
  if (presence) element.dataset.presence = presence;
  element.style.setProperty("--hue", String([...name].reduce((sum, one) => (sum * 31 + one.charCodeAt(0)) % 360, 7)));
  return element;
}

const drawn = new WeakMap<Element, string>();

/** Makes the children of `list` those of `items`, touching only what differs; the focus stays where it was. */
export function sync<T>(list: HTMLElement, items: T[], key: (item: T) => string, draw: (item: T) => HTMLElement): void {
  const focused = document.activeElement instanceof HTMLElement && list !== document.activeElement && list.contains(document.activeElement) ? document.activeElement : undefined;
  const focusedChild = focused && [...list.children].find((child) => child.contains(focused));
  const focusedKey = focusedChild instanceof HTMLElement ? focusedChild.dataset.key : undefined;
  const old = new Map([...list.children].map((child) => [(child as HTMLElement).dataset.key ?? "", child as HTMLElement]));
  const wanted = new Set(items.map(key));
  for (const [one, child] of old) if (!wanted.has(one)) child.remove();
  items.forEach((item, index) => {
    const [one, signature] = [key(item), JSON.stringify(item)];
    let child = old.get(one);
    if (!child || drawn.get(child) !== signature) {
      const fresh = draw(item);
      fresh.dataset.key = one;
      drawn.set(fresh, signature);
      if (child?.hasAttribute("tabindex")) fresh.tabIndex = child.tabIndex;
      child?.replaceWith(fresh);
      child = fresh;
    }
    if (list.children[index] !== child) list.insertBefore(child, list.children[index] ?? null);
  });
  if (!focused || document.activeElement === focused || focusedKey === undefined) return;
  const child = [...list.children].find((one) => (one as HTMLElement).dataset.key === focusedKey) as HTMLElement | undefined;
  const same = child && focused.dataset.focus ? child.querySelector<HTMLElement>(`[data-focus="${CSS.escape(focused.dataset.focus)}"]`) : undefined;
  (focused.isConnected ? focused : same ?? child)?.focus({ preventScroll: true });
}
