"use strict";
const at = (id) => document.getElementById(id);

function percent(share) {
  if (share > 0.9995 && share < 1) return "> 99.9 %";
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  return (100 * share).toFixed(1) + " %";
}

function power(value) { // 1e-5 as 10⁻⁵, 2e-6 as 2·10⁻⁶
  const [digits, exponent] = value.toExponential().split("e");
  const raised = [...exponent.replace("+", "")].map((c) => c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join("");
  return (digits === "1" ? "10" : digits + "·10") + raised;
}

function show(answer) {
  at("best").textContent = "Called " + (answer.class ?? (answer.findings.join(", ") || "no finding"));
  at("best").hidden = false;
  const rows = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 20);
  at("bars").replaceChildren(...rows.map(([name, share]) => {
    const row = document.createElement("li"), bar = document.createElement("progress");
    const label = document.createElement("bdi"), value = document.createElement("span");
    label.textContent = name;
    value.textContent = percent(share);
    bar.value = share;
    row.append(label, value, bar);
    return row;
  }));
}

function refuse(why) {
  at("error").textContent = why;
  at("error").hidden = false;
  at("best").hidden = true;
  at("bars").replaceChildren();
}

async function ask(file) {
  at("error").hidden = true;
  at("shown").src = URL.createObjectURL(file);
  at("shown").hidden = false;
  at("invite").hidden = true;
  try {
    const response = await fetch("/predict", { method: "POST", body: file });
    const answer = await response.json();
    if (response.ok) show(answer); else refuse(answer.error);
  } catch {
    refuse("The service does not answer.");
  }
}

at("shown").addEventListener("error", () => { // no image, or one that browsers do not draw: TIFF, DICOM
  at("shown").hidden = true;
  at("invite").hidden = false;
});
at("file").addEventListener("change", (event) => event.target.files[0] && ask(event.target.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  at("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) ask(event.dataTransfer.files[0]);
  });
}
fetch("/privacy").then((response) => response.json()).then((told) => {
  at("privacy").textContent = told.insecure
    ? "NOT PRIVATE: this model was trained with a fixed noise seed, for tests."
    : told.not_private
    ? told.not_private
    : `This model (${told.model}) was trained with differential privacy: ε = ${Number(told.spent).toPrecision(3)}, ` +
      `δ = ${power(told.delta)}, for one ${told.unit || "image"} (${told.relation}). How little its answers tell of any one of them is what ε says.`;
});
