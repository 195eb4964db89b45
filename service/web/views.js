/** Every view of the page, in the order of the navigation. */

import { admin } from "./views/admin.js";
import { browse } from "./views/browse.js";
import { compare } from "./views/compare.js";
import { home } from "./views/home.js";
import { imports } from "./views/imports.js";
import { individuals } from "./views/individuals.js";
import { review } from "./views/review.js";
import { rowsView } from "./views/rows.js";
import { search } from "./views/search.js";
import { shortlists } from "./views/shortlists.js";

/** @type {import("./router.js").View[]} */
export const views = [home, search, rowsView, compare, browse, shortlists, imports, review, individuals, admin];
