// Add what the theme's templates lack for readers who use a keyboard or a screen reader.
for (const caption of document.querySelectorAll(".caption[role=heading]")) caption.ariaLevel = "2";
document.querySelector(".sidebar-drawer").ariaLabel = "All pages";
document.querySelector(".toc-drawer").ariaLabel = "This page";
for (const block of document.querySelectorAll("pre, .table-wrapper"))
  if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
if (!document.querySelector("h1"))
  document.querySelector("[role=main]").insertAdjacentHTML("afterbegin", "<h1>Search</h1>");
