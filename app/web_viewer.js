// The before/after viewer: two layers under one transform, each clipped at the divider, as one may be seen through.
// Drag moves the picture when it is larger than the stage, else the divider; the wheel and two fingers zoom.
const root = element.querySelector(".viewer"), stage = root.querySelector(".stage");
const [before, after] = root.querySelectorAll(".layer"), images = root.querySelectorAll("img");
const split = root.querySelector(".split"), divider = root.querySelector(".divider"), shown = root.querySelector("output");
const tags = root.querySelectorAll(".tag");
let scale = 1, x = 0, y = 0, fitted = true, pointers = new Map(), moving = null, name = null;

const size = () => [images[0].naturalWidth || 1, images[0].naturalHeight || 1];
const fitScale = () => Math.min(stage.clientWidth / size()[0], stage.clientHeight / size()[1], 4);

function place() {
  const [width, height] = size();
  stage.style.setProperty("--fit", `${stage.clientWidth * height / width}px`);
  const room = [stage.clientWidth, stage.clientHeight];
  if (fitted) scale = fitScale();
  const w = width * scale, h = height * scale;
  x = w <= room[0] ? (room[0] - w) / 2 : Math.min(0, Math.max(room[0] - w, x));
  y = h <= room[1] ? (room[1] - h) / 2 : Math.min(0, Math.max(room[1] - h, y));
  for (const image of images) {
    image.style.width = `${w}px`;
    image.style.height = `${h}px`;
    image.style.transform = `translate(${x}px, ${y}px)`;
    image.style.imageRendering = scale >= 2 ? "pixelated" : "auto";
  }
  // the divider travels over the picture, not over the empty stage beside it
  const left = Math.max(0, x), visible = Math.min(room[0], w), at = left + visible * split.value / 1000;
  before.style.clipPath = `inset(0 calc(100% - ${at}px) 0 0)`;
  after.style.clipPath = `inset(0 0 0 ${at}px)`;
  divider.style.left = `${at}px`;
  shown.textContent = `${Math.round(scale * 100)}%`;
  root.querySelectorAll("[data-zoom]").forEach(button => button.setAttribute("aria-pressed",
    button.dataset.zoom === "fit" ? fitted : !fitted && Number(button.dataset.zoom) === scale));
  split.setAttribute("aria-valuetext", `${Math.round(split.value / 10)}% before`);
  stage.classList.toggle("large", w > room[0] + 1 || h > room[1] + 1);
}

function zoomTo(next, centreX = stage.clientWidth / 2, centreY = stage.clientHeight / 2) {
  next = Math.min(16, Math.max(Math.min(fitScale(), 1), next));
  x = centreX - (centreX - x) * next / scale;
  y = centreY - (centreY - y) * next / scale;
  scale = next;
  fitted = false;
  place();
}

function splitAt(clientX) {
  const box = stage.getBoundingClientRect(), w = size()[0] * scale;
  const left = Math.max(0, x), visible = Math.min(box.width, w);
  split.value = 1000 * (clientX - box.left - left) / visible;
  place();
}

const url = path => "gradio_api/file=" + path.split("/").map(encodeURIComponent).join("/");

async function show() {
  const value = props.value;
  root.hidden = !value;
  if (!value) return;
  const other = name !== value.name;
  name = value.name;
  // decode before showing, so that a new strength does not flicker
  await Promise.all([value.before, value.after].map(async (path, i) => {
    const image = new Image();
    image.src = url(path);
    await image.decode().catch(() => {});
    if (props.value === value || JSON.stringify(props.value) === JSON.stringify(value)) images[i].src = image.src;
  }));
  images[0].alt = value.before_alt;
  images[1].alt = value.after_alt;
  tags[0].textContent = value.before_tag;
  tags[1].textContent = value.after_tag;
  await Promise.all([...images].map(image => image.decode().catch(() => {})));
  if (other) {
    fitted = true;
    split.value = 500;
  }
  root.dataset.ready = value.after;
  place();
}

split.addEventListener("input", place);
root.querySelector(".zoom").addEventListener("click", event => {
  const zoom = event.target.dataset.zoom;
  if (zoom === "fit") { fitted = true; place(); } else if (zoom) zoomTo(Number(zoom));
});
stage.addEventListener("wheel", event => {
  event.preventDefault();
  const box = stage.getBoundingClientRect();
  zoomTo(scale * Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });
stage.addEventListener("dblclick", event => {
  const box = stage.getBoundingClientRect();
  if (fitted) zoomTo(Math.max(1, scale * 2), event.clientX - box.left, event.clientY - box.top);
  else { fitted = true; place(); }
});
stage.addEventListener("pointerdown", event => {
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, event);
  const near = Math.abs(event.clientX - divider.getBoundingClientRect().left) < 28;
  moving = near || !stage.classList.contains("large") ? "split" : "picture";
  if (moving === "split" && pointers.size === 1) splitAt(event.clientX);
});
stage.addEventListener("pointermove", event => {
  const last = pointers.get(event.pointerId);
  if (!last) return;
  if (pointers.size === 2) {
    const fixed = [...pointers.values()].find(pointer => pointer.pointerId !== event.pointerId);
    const span = pointer => Math.hypot(pointer.clientX - fixed.clientX, pointer.clientY - fixed.clientY);
    const box = stage.getBoundingClientRect();
    zoomTo(scale * span(event) / Math.max(1, span(last)), fixed.clientX - box.left, fixed.clientY - box.top);
  } else if (moving === "split") splitAt(event.clientX);
  else {
    x += event.clientX - last.clientX;
    y += event.clientY - last.clientY;
    place();
  }
  pointers.set(event.pointerId, event);
});
stage.addEventListener("keydown", event => {
  const step = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (step && stage.classList.contains("large")) {
    x += step[0] * stage.clientWidth / 8;
    y += step[1] * stage.clientHeight / 8;
    place();
  } else if (event.key === "+" || event.key === "=") zoomTo(scale * 2);
  else if (event.key === "-") zoomTo(scale / 2);
  else return;
  event.preventDefault();
});
for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, event => pointers.delete(event.pointerId));
new ResizeObserver(place).observe(stage);
watch("value", show);
show();
