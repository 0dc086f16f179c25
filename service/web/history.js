// Jobs of before: open, cancel, delete.

import { get, post, remove } from "./api.js";
import { $, make, plural } from "./dom.js";

const PAGE = 20;
let open = () => {};

async function more(after = "") {
  $("history-more").hidden = true;
  try {
    const page = await get("/v1/predictions?limit=" + PAGE + (after ? "&after=" + encodeURIComponent(after) : ""));
    $("history-list").append(...page.items.map(item));
    $("history-says").textContent = $("history-list").children.length ? "" : "Nothing has been asked yet.";
    $("history-more").hidden = !page.next;
    $("history-more").onclick = () => more(page.next);
  } catch (error) {
    $("history-says").textContent = error.message;
  }
}

function item(one) {
  const first = one.smiles[0] || "";
  const words =
    (first.length > 40 ? first.slice(0, 39) + "…" : first) +
    (one.n_molecules > 1 ? " and " + plural(one.n_molecules - 1, "other") : "");
  const line = make("li", {});
  const act = (title, work) =>
    make(
      "button",
      {
        type: "button",
        class: "quiet",
        "aria-label": title + " " + words,
        click: async () => {
          try {
            await work();
          } catch (error) {
            $("history-says").textContent = error.message;
          }
        },
      },
      title,
    );
  const again = () => {
    $("history-list").replaceChildren();
    return more();
  };
  const active = one.status === "queued" || one.status === "running";
  line.append(
    make(
      "div",
      {},
      make("code", {}, words),
      make(
        "p",
        { class: "hint" },
        new Date(one.created).toLocaleString() + " · " + plural(one.draws, "draw") + " · seed " + one.seed,
      ),
    ),
    make("span", { class: "chip status-" + one.status }, one.status),
    make(
      "span",
      { class: "acts" },
      act("Open", async () => {
        $("history").close();
        await open(one.id);
      }),
      active
        ? act("Cancel", async () => {
            await post("/v1/predictions/" + one.id + "/cancel", {});
            await again();
          })
        : (null ?? ""),
      act("Delete", async () => {
        await remove("/v1/predictions/" + one.id);
        line.remove();
      }),
    ),
  );
  return line;
}

export function startHistory(opener) {
  open = opener;
  $("open-history").addEventListener("click", () => {
    $("history-list").replaceChildren();
    $("history").showModal();
    more();
  });
}
