// Paste and drop anywhere on the page go to the file input in view; the button in the header switches light and dark.
() => {
  const shown = () => [...document.querySelectorAll(".takes-files:not(.small)")].find(box => box.offsetParent !== null);
  const give = async files => {
    const box = shown();
    if (!box || !files.length) return;
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
  document.addEventListener("dragover", event => event.preventDefault());
  document.addEventListener("drop", event => {
    if (event.target.closest(".takes-files")?.querySelector("input[type=file]")) return;
    event.preventDefault();
    give([...(event.dataTransfer?.files ?? [])]);
  });
  document.addEventListener("click", event => {
    if (event.target.closest("#scheme")) document.body.classList.toggle("dark");
  });
  document.documentElement.lang = "en";
}
