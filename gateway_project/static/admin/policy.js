"use strict";

// The page of a policy: its rules are moved, folded, added and tried here. Without this file positions are numbers, all
// cards are open, and the page goes to the server for a new card or a try.
document.addEventListener("DOMContentLoaded", () => {
  const list = document.querySelector("[data-rules]");
  if (list) {
    const rules = new Rules(list);
    rules.start();
    startTrying(list.closest("form"));
  }
});

class Rules {
  constructor(list) {
    this.list = list;
    this.form = list.closest("form");
    this.said = document.querySelector("[data-said]");
  }

  start() {
    this.cards().forEach((card) => this.prepare(card));
    this.renumber();
    this.list.addEventListener("end", (event) => this.tell(event.item));  // of the theme's x-sort: dropped
    this.list.addEventListener("click", (event) => this.clicked(event));
    this.list.addEventListener("input", (event) => showState(event.target.closest("[data-rule]")));
    document.querySelector("[data-picker]").addEventListener("click", (event) => this.pick(event));
    this.list.querySelector(".gh-rule-wrong")?.scrollIntoView({ block: "center" });
  }

  cards() {
    return [...this.list.querySelectorAll(":scope > [data-rule]")];
  }

  prepare(card) {
    card.querySelectorAll("[data-move]").forEach((button) => { button.hidden = false; });
    fold(card, card.hasAttribute("data-folded") && this.cards().length > 1);
    showState(card);
  }

  renumber() {
    const cards = this.cards();
    cards.forEach((card, index) => {
      card.querySelector("[data-number]").textContent = index + 1;
      card.querySelector("[data-position]").value = index + 1;
      card.querySelector('[data-move="-1"]').disabled = index === 0;
      card.querySelector('[data-move="1"]').disabled = index === cards.length - 1;
    });
    document.querySelector("[data-no-rules]").hidden = cards.length > 0;
  }

  clicked(event) {
    const card = event.target.closest("[data-rule]");
    const move = event.target.closest("[data-move]");
    if (move) {
      this.move(card, Number(move.dataset.move));
      // At the end of the list its own button is switched off, and the focus must not get lost.
      (move.disabled ? card.querySelector("[data-move]:not(:disabled)") : move)?.focus();
    } else if (event.target.closest("[data-fold]")) {
      fold(card, !card.hasAttribute("data-folded"));
    }
  }

  move(card, step) {
    const cards = this.cards();
    const other = cards[cards.indexOf(card) + step];
    if (!other) {
      return;
    }
    other[step < 0 ? "before" : "after"](card);
    this.tell(card);
  }

  tell(card) {
    this.renumber();
    changed(this.list);
    const place = this.cards().indexOf(card);
    if (place >= 0) {
      this.said.textContent = `${title(card)} is rule ${place + 1} of ${this.cards().length} now.`;
    }
  }

  async pick(event) {
    const button = event.target.closest("[data-add]");
    if (!button) {
      return;
    }
    event.preventDefault();
    const next = this.form.querySelector("[data-next]");
    const address = new URL(this.list.dataset.cardUrl, window.location.href);
    address.searchParams.set("check", button.dataset.add);
    address.searchParams.set("number", next.value);
    address.searchParams.set("position", this.cards().length + 1);
    const page = await fetched(address.href);
    if (page === null) {
      this.form.requestSubmit(button);
      return;
    }
    next.value = Number(next.value) + 1;
    this.list.append(...fragment(page));
    const card = this.cards().at(-1);
    this.prepare(card);
    this.renumber();
    changed(this.list);
    document.querySelector("[data-picker]").open = false;
    this.said.textContent = `${title(card)} was added as rule ${this.cards().length}.`;
    card.scrollIntoView({ block: "nearest" });
    card.querySelector(".gh-rule-body :is(input:not([type=hidden]), select, textarea)")?.focus();
  }
}

function title(card) {
  return card.querySelector("[data-title]").textContent;
}

function fold(card, folded) {
  card.toggleAttribute("data-folded", folded);
  card.querySelector("[data-fold]").setAttribute("aria-expanded", String(!folded));
}

// What a folded card still says: its action, where it looks, and whether it is on.
function showState(card) {
  if (!card) {
    return;
  }
  const badge = (name) => card.querySelector(`[data-badge="${name}"]`);
  const field = (name) => card.querySelector(`[name$="-${name}"]`);
  const chosen = (name) => field(name)?.selectedOptions?.[0]?.textContent ?? "";
  badge("action").textContent = chosen("action");
  badge("stage").textContent = chosen("stage") || (card.querySelector("[data-stage]")?.dataset.stage ?? "");
  badge("dry_run").hidden = !field("dry_run")?.checked;
  badge("enabled").hidden = field("enabled")?.checked ?? true;
  badge("remove").hidden = !card.querySelector("[data-remove]").checked;
  card.toggleAttribute("data-off", !(field("enabled")?.checked ?? true));
  card.toggleAttribute("data-removed", card.querySelector("[data-remove]").checked);
  const name = field("name");
  if (name) {
    card.querySelector("[data-given-name]").textContent = name.value;
  }
}

// So that the browser asks before the page is left.
function changed(list) {
  list.closest("form").querySelector("[data-position]")?.dispatchEvent(new Event("input", { bubbles: true }));
}

function fragment(page) {
  return [...new DOMParser().parseFromString(page, "text/html").body.children];
}

async function fetched(address, options) {
  try {
    const response = await fetch(address, { credentials: "same-origin", ...options });
    return response.ok && !response.redirected ? await response.text() : null;
  } catch {
    return null;
  }
}

function startTrying(form) {
  const panel = document.querySelector("[data-try]");
  const button = panel?.querySelector('[name="_try"]');
  button?.addEventListener("click", async (event) => {
    event.preventDefault();
    button.disabled = true;
    panel.setAttribute("aria-busy", "true");
    const page = await fetched(panel.dataset.try, { method: "POST", body: new FormData(form) });
    button.disabled = false;
    panel.removeAttribute("aria-busy");
    if (page === null) {
      form.requestSubmit(button);
      return;
    }
    const result = panel.querySelector("[data-try-result]");
    result.replaceChildren(...fragment(page));
    result.focus({ preventScroll: true });
    result.scrollIntoView({ block: "nearest" });
  });
}
