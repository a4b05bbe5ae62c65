// Paste and drop anywhere on the page go to the file input in view; the button in the header switches light and dark.
() => {
  const shown = () => [...document.querySelectorAll(".takes-files:not(.small)")].find(box => box.offsetParent !== null);
  const give = async (files, at) => {
    let box = at ?? shown();
    if (!box || !files.length) return;
    if (box.id === "photo" && files.length > 1) { // several go where several are taken
      [...document.querySelectorAll("#tabs button[role=tab]")].find(tab => tab.textContent.trim() === "Many photos")?.click();
      for (let i = 0; i < 40 && !document.querySelector("#photos")?.offsetParent; i++) await new Promise(done => setTimeout(done, 50));
      box = document.querySelector("#photos") ?? box;
    }
    // a photo that is there already has taken the place of its input: it makes room for the next one
    if (!box.querySelector("input[type=file]")) box.querySelector("[aria-label=Clear]")?.click();
    for (let i = 0; i < 40 && !box.querySelector("input[type=file]"); i++) await new Promise(done => setTimeout(done, 50));
    const input = box.querySelector("input[type=file]");
    if (!input) return;
    const list = new DataTransfer();
    for (const file of input.multiple ? files : [files[0]]) list.items.add(file);
    input.files = list.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  document.addEventListener("paste", event => give([...(event.clipboardData?.files ?? [])]));
  // before the rows of a filled list, which take whatever is dragged for one of them
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, event => {
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    const box = event.target.closest?.(".takes-files");
    const several = box?.id === "photo" && [...event.dataTransfer.items].filter(item => item.kind === "file").length > 1;
    if (box && !several && !box.querySelector(".file-preview") && event.target.closest("button")) return; // takes them by itself
    event.preventDefault();
    event.stopPropagation();
    if (kind === "dragover") event.dataTransfer.dropEffect = "copy";
    else {
      event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true })); // looks as if files still hung over it
      give([...event.dataTransfer.files], box);
    }
  }, true);
  // the noise level counts when its slider is let go of, which keys are, too
  document.addEventListener("keyup", event => {
    const field = event.target.closest?.("#sigma input");
    if (field?.type === "range" && /^(Arrow|Page|Home|End)/.test(event.key)) field.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
    if (field?.type === "number" && event.key === "Enter") field.blur();
  });
  // a number stays within its range, and what it was when it is emptied: what is shown is what is run
  const number = event => event.target.matches?.("input[type=number]") ? event.target : null;
  document.addEventListener("focusin", event => { if (number(event)) event.target.dataset.before = event.target.value; });
  document.addEventListener("input", event => {
    const field = number(event);
    if (field?.value === "") event.stopImmediatePropagation();
    else if (field?.validity.rangeOverflow) field.value = field.max;
    else if (field?.validity.rangeUnderflow) field.value = field.min;
  }, true);
  document.addEventListener("blur", event => {
    if (number(event)?.value !== "") return;
    event.target.value = event.target.dataset.before;
    event.target.dispatchEvent(new Event("input", { bubbles: true }));
  }, true);
  document.addEventListener("click", event => {
    if (event.target.closest("#scheme")) document.body.classList.toggle("dark");
  });
  // Gradio calls the box of every upload alike, and makes it anew when its file is taken away
  const name = () => document.querySelectorAll(".takes-files button[aria-dropeffect]").forEach(button => {
    const label = button.parentElement.querySelector("[data-testid=block-label]")?.textContent.trim();
    if (label && button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label);
  });
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
  document.documentElement.lang = "en";
}
