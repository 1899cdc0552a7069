// Streamlit's list of pages has groups between a list and its entries, which makes no list to those who listen to it: its
// links are links of the navigation alone.
const plain = () => {
  for (const part of document.querySelectorAll("[data-testid=stSidebarNavItems], [data-testid=stSidebarNavItems] li"))
    if (part.getAttribute("role") !== "none") part.setAttribute("role", "none");
};
if (!window.rmkitPages) {
  window.rmkitPages = new MutationObserver(plain);
  window.rmkitPages.observe(document.body, { subtree: true, childList: true });
}
plain();
