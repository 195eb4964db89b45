/** Putting photos into a shortlist, from wherever they are shown. */

import * as api from "./api.js";
import { address, go } from "./router.js";
import { toast } from "./toasts.js";
import { shortlists as words } from "./words.js";

/** Put items into a shortlist, which is made where there is none of the name; `leave` goes there. */
export async function collect(items, leave = go) {
  const lists = await api.shortlists();
  const name = prompt(words.whichList(lists.map((list) => list.name)), lists[0]?.name ?? words.newList)?.trim();
  if (!name) return;
  const list = lists.find((one) => one.name === name) ?? (await api.createShortlist({ name }));
  await api.addToShortlist(list.shortlist_id, items.map((item) => item.item_id));
  const open = () => leave(address("shortlists", [list.shortlist_id]));
  toast(words.added(items.length, name), { name: words.open, run: open });
}
