// Paste and drop anywhere on the page go to the file input in view; the button in the header switches light and dark.
() => {
  const give = files => {
    const input = [...document.querySelectorAll(".takes-files input[type=file]")]
      .find(input => input.closest(".takes-files").offsetParent !== null);
    if (!input || !files.length) return;
    const list = new DataTransfer();
    for (const file of input.multiple ? files : [files[0]]) list.items.add(file);
    input.files = list.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  document.addEventListener("paste", event => give([...(event.clipboardData?.files ?? [])]));
  document.addEventListener("dragover", event => event.preventDefault());
  document.addEventListener("drop", event => {
    if (event.target.closest(".takes-files, .reference")) return;
    event.preventDefault();
    give([...(event.dataTransfer?.files ?? [])]);
  });
  document.addEventListener("click", event => {
    if (event.target.closest("#scheme")) document.body.classList.toggle("dark");
  });
  document.documentElement.lang = "en";
}
