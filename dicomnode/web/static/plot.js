// Shows the facts of a point of the plot beside it, under the pointer or the keyboard's focus.

const plot = document.getElementById("plot"), facts = document.getElementById("facts");
const marks = [...plot.querySelectorAll(".mark")];

function tell(mark) {
  facts.textContent = mark.getAttribute("aria-label");
  facts.hidden = false;
  const box = facts.parentElement.getBoundingClientRect(), at = mark.querySelector(".shape").getBoundingClientRect();
  const left = at.left - box.left + at.width / 2, top = at.top - box.top;
  const isRight = left > box.width / 2;
  facts.style.left = `${isRight ? Math.max(0, left - facts.offsetWidth - 22) : left + 22}px`;
  facts.style.top = `${Math.max(0, Math.min(top - facts.offsetHeight / 2, box.height - facts.offsetHeight))}px`;
}

function hush() {
  facts.hidden = true;
}

for (const [index, mark] of marks.entries()) {
  mark.addEventListener("pointerenter", () => tell(mark));
  mark.addEventListener("focus", () => tell(mark));
  mark.addEventListener("pointerleave", hush);
  mark.addEventListener("blur", hush);
  mark.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hush();
    if (!step) return;
    event.preventDefault();
    marks[index + step]?.focus();
  });
}
