// Shows only what the choices so far leave: the models of the team, the day of expiry.

const form = document.querySelector("[data-new-key]");
const models = form.querySelector("[data-which-models]");
const day = form.querySelector("[data-expires-on]");

function show() {
  const team = form.elements.team.value;
  models.hidden = form.querySelector("[name=which_models]:checked")?.value !== "some";
  for (const box of models.querySelectorAll("[name=models]")) {
    const offered = box.dataset.teams.split(" ").includes(team);
    (box.closest("label").parentElement ?? box).hidden = !offered;
    box.disabled = !offered;
  }
  day.hidden = form.elements.expires.value !== "day";
}

form.addEventListener("change", show);
addEventListener("pageshow", show);
show();
