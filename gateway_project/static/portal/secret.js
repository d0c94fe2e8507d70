// The page that shows a new secret. A reload or the back button leads to the key's own page, which does not have it.

const card = document.querySelector("[data-secret-of]");
history.replaceState(null, "", card.dataset.secretOf);

// Browsers may keep a page that was left, to bring it back at once.
addEventListener("pagehide", () => {
  for (const element of document.querySelectorAll("[data-secret]")) {
    if (element.value === undefined) element.textContent = "";
    else element.value = "";
  }
});
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

// One tool at a time.
const box = document.querySelector("[data-tabs]");
const panels = [...box.children];
const list = document.createElement("div");
list.className = "tabs";
list.setAttribute("role", "tablist");
list.setAttribute("aria-label", "Tools");
const tabs = panels.map((panel, index) => {
  const tab = document.createElement("button");
  tab.type = "button";
  tab.id = `tab-${panel.id}`;
  tab.textContent = panel.querySelector("h3").textContent;
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", panel.id);
  panel.setAttribute("role", "tabpanel");
  panel.setAttribute("aria-labelledby", tab.id);
  tab.addEventListener("click", () => choose(index));
  return tab;
});

function choose(chosen) {
  panels.forEach((panel, index) => {
    panel.hidden = index !== chosen;
    tabs[index].setAttribute("aria-selected", String(index === chosen));
    tabs[index].tabIndex = index === chosen ? 0 : -1;
  });
}

list.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = (tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length;
  choose(next);
  tabs[next].focus();
});

list.append(...tabs);
box.prepend(list);
choose(0);
