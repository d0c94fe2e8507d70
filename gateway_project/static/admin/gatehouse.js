"use strict";

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("[data-copy]").forEach(makeCopyButton);
  document.querySelectorAll("select[data-base-urls]").forEach(showUsualAddress);
  document.querySelectorAll("[data-tick-all]").forEach(makeTickAll);
  document.querySelectorAll("span[x-on\\:click], div[x-on\\:click]").forEach(makeReachableByKeyboard);
});

// A page with a key on it must not come back with the browser's back button.
window.addEventListener("pagehide", () => {
  document.querySelectorAll("[data-secret]").forEach((element) => {
    element.value = "";
    element.textContent = "";
  });
});

function makeCopyButton(button) {
  const label = button.querySelector("[data-copy-label]");
  const said = label.textContent;
  label.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    label.textContent = (await copy(source)) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { label.textContent = said; }, 3000);
  });
}

async function copy(source) {
  select(source);
  try {
    await navigator.clipboard.writeText(source.value ?? source.textContent);
    return true;
  } catch {
    // Without TLS there is no clipboard to write to; the old command still works in most browsers.
    return document.execCommand("copy");
  }
}

function select(source) {
  if (source.select) {
    source.select();
    return;
  }
  const range = document.createRange();
  range.selectNodeContents(source);
  const selection = window.getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

// The base URL's placeholder is the address that is used when it is left empty.
function showUsualAddress(kind) {
  const usual = JSON.parse(kind.dataset.baseUrls);
  const field = document.getElementById("id_base_url");
  const show = () => { field.placeholder = usual[kind.value] || "https://"; };
  kind.addEventListener("change", show);
  show();
}

// One box that ticks all boxes of its form that bear a name.
function makeTickAll(all) {
  const boxes = () => all.form.querySelectorAll(`input[name="${all.dataset.tickAll}"]`);
  all.addEventListener("change", () => boxes().forEach((box) => { box.checked = all.checked; }));
}

// The theme has clickable spans and divs, which the Tab key passes over.
function makeReachableByKeyboard(element) {
  if (element.closest("a, button, [x-sort\\:handle]") || element.querySelector("a, button, input")) {
    return;
  }
  element.tabIndex = 0;
  element.setAttribute("role", "button");
  if (!element.getAttribute("aria-label") && element.classList.contains("material-symbols-outlined")) {
    element.setAttribute("aria-label", element.title || element.textContent.trim().replaceAll("_", " "));
  }
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      element.click();
    }
  });
}
