// The frame of every page: who is asking, where to go, which page is shown.

import { whoAmI } from "./api.js";
import { announce, banner, h } from "./dom.js";
import { listenToKeys } from "./keys.js";
import { login } from "./login.js";
import { href, namespace, outboxNames, setToken, setWho, token, who } from "./session.js";
import { tick } from "./time.js";
import * as bulks from "./bulks.js";
import * as deadletter from "./deadletter.js";
import * as deadletters from "./deadletters.js";
import * as list from "./list.js";
import * as outbox from "./outbox.js";
import * as overview from "./overview.js";
import * as transaction from "./transaction.js";

const pages = { "": overview, transactions: list, transaction, bulks, outbox, deadletters, deadletter };
// The item of the navigation that a page belongs to, where that is another one.
const belongs = { transaction: "transactions", deadletter: "outbox", deadletters: "outbox" };
const main = document.getElementById("main");
let leaving = new AbortController();

const pageName = () => location.pathname.split("/").pop();

// navigate goes to an address of ours without loading the frame again.
function navigate(to) {
  history.pushState(null, "", to);
  show();
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const page = pages[pageName()] ?? overview;
  frame();
  banner();
  main.replaceChildren();
  try {
    await page.show({ root: main, query: new URLSearchParams(location.search), signal, navigate, title });
  } catch (err) {
    if (!signal.aborted) failed(err);
  }
}

function title(text) {
  const cluster = document.querySelector(".cluster")?.textContent;
  document.title = [text, cluster, "Amends"].filter(Boolean).join(" · ");
}

function failed(err) {
  if (err.status === 401) return ask("Your token is no longer accepted.");
  title("Error");
  main.replaceChildren(h("section", { class: "panel" },
    h("h1", {}, err.status === 404 ? "Not found" : err.status === 403 ? "Not allowed" : "That did not work"),
    h("p", { class: "refusal", role: "alert" }, err.message), err.reason && h("p", {}, h("code", {}, err.reason))));
  announce(err.message);
}

function frame() {
  const items = { "": "Overview", transactions: "Transactions", bulks: "Bulk actions" };
  if (outboxNames.length > 0) items.outbox = "Outboxes";
  const here = belongs[pageName()] ?? pageName();
  document.querySelector(".brand").setAttribute("href", href(""));
  document.getElementById("nav").replaceChildren(...Object.entries(items).map(([page, label]) =>
    h("a", { href: href(page), "aria-current": page === here && "page" }, label)));
  document.getElementById("session").replaceChildren(...session());
}

function session() {
  const me = who();
  if (!me.authenticated) return [spaces(me), h("span", { class: "open", title: "This coordinator asks nobody who they are" }, "no sign-in")];
  const roles = me.roles.map((r) => r.replace("ROLE_", "").toLowerCase().replaceAll("_", "-")).join(", ") || "no role";
  const out = () => (setToken(""), ask());
  return [spaces(me), h("span", {}, h("strong", {}, me.subject), " ", h("span", { class: "quiet" }, roles)),
    token() && h("button", { type: "button", class: "link", onclick: out }, "Sign out")].filter(Boolean);
}

// spaces chooses the namespace, where there is more than one.
function spaces(me) {
  const names = me.namespaces ?? [];
  if (!namespace() && names.length < 2 && !names.includes("*")) return "";
  const input = h("input", { name: "ns", value: namespace(), placeholder: "default", "aria-label": "namespace", list: "namespaces", size: 9, autocomplete: "off", spellcheck: "false" });
  const go = (event) => (event.preventDefault(), location.assign(href("", { ns: input.value.trim() })));
  return h("form", { class: "spaces", onsubmit: go }, h("label", {}, h("span", {}, "namespace "), input),
    h("datalist", { id: "namespaces" }, names.filter((n) => n !== "*").map((n) => h("option", { value: n }))));
}

// ask lets somebody sign in, then shows the page that they wanted.
function ask(why) {
  leaving.abort();
  document.getElementById("nav").replaceChildren();
  document.getElementById("session").replaceChildren();
  title("Sign in");
  login(main, why, begin);
}

async function begin() {
  try {
    setWho(await whoAmI());
  } catch (err) {
    if (err.status === 401) return ask(token() ? err.message : "");
    if (err.status === 0 || err.status >= 500) {
      banner(`${err.message}. Trying again.`);
      return void setTimeout(begin, 2000);
    }
    frame(); // to choose another namespace
    return failed(err);
  }
  await show();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const plain = !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button);
  if (!link || !plain || link.target || link.origin !== location.origin) return;
  if (link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  navigate(link.href);
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
});
addEventListener("popstate", show);
setInterval(tick, 1000);
listenToKeys(navigate);
begin();
