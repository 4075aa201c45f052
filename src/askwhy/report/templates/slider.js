const slider = document.getElementById("opacity"), shown = document.getElementById("opacity-shown");
slider.addEventListener("input", () => {
  document.documentElement.style.setProperty("--opacity", slider.value / 100);
  shown.textContent = slider.value + "%";
});
document.getElementById("opacity-bar").hidden = false;
