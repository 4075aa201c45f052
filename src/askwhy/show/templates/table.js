for (const table of document.querySelectorAll("table.askwhy-rows:not([data-ready])")) {
  table.dataset.ready = "yes";
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = row => Number(row.cells[k].dataset.v);
      body.append(...[...body.rows].sort((a, b) => down ? value(b) - value(a) : value(a) - value(b)));
    });
  });
}
