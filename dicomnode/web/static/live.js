// Fetches the page again every few seconds and puts what changed into the parts that carry `data-live` and an id.
// Nothing is fetched while nobody can see the page, and nothing is replaced that somebody is typing into.

const EVERY_MS = 4000;
const parts = () => [...document.querySelectorAll("[data-live][id]")];
const problem = document.getElementById("live-problem");

function isBusy(part) {
  const focused = document.activeElement;
  return part.contains(focused) && focused.matches("input, select, textarea");
}

function replace(fresh) {
  for (const part of parts()) {
    const next = fresh.getElementById(part.id);
    if (!next || isBusy(part) || part.innerHTML === next.innerHTML) continue;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    const opened = [...part.querySelectorAll("details[open][id]")].map((one) => one.id);
    part.replaceChildren(...next.childNodes);
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }
  const updated = document.getElementById("updated");
  const now = fresh.getElementById("updated");
  updated.textContent = now.textContent;
  updated.dateTime = now.dateTime;
}

function say(text) {
  if (problem.textContent !== text) problem.textContent = text;
}

async function refresh() {
  try {
    const answer = await fetch(location.href, { headers: { "X-Live": "1" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") {
      say("The session has ended: reload the page to sign in again.");
      return;
    }
    if (!answer.ok) throw new Error(answer.statusText);
    replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
    say("");
  } catch {
    say("The node does not answer. What is shown is not up to date.");
  }
}

async function watch() {
  if (!document.hidden) await refresh();
  setTimeout(watch, EVERY_MS);
}

if (parts().length) {
  document.getElementById("pulse").hidden = false;
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  setTimeout(watch, EVERY_MS);
}
