/** What a client that openapi-ts generated is used for; prints what came of it. */

import { readFileSync } from "node:fs";
import * as api from "./generated";
import { client } from "./generated/client.gen";

const [address, key, photo] = process.argv.slice(2);
client.setConfig({ baseUrl: address, auth: key, throwOnError: true });
const file = () => new File([readFileSync(photo)], "photo.png", { type: "image/png" });

const told = { images: [file()], metadata: JSON.stringify([{ camera: "gate" }]) };
const enrolled = (await api.enrolV1ItemsPost({ body: told, throwOnError: true })).data.results[0].item!;
const path = { item_id: enrolled.item_id };
const changed = (await api.editV1ItemsItemIdPatch({ path, body: { label: "ada" }, throwOnError: true })).data;
const question = { image: [file()], cameras: ["gate"], top_k: 3 };
const answer = (await api.queryV1QueryPost({ body: question, throwOnError: true })).data;
const listed = (await api.pageV1ItemsGet({ query: { labels: ["ada"] }, throwOnError: true })).data;
const thumbnail = (await api.thumbnailV1ItemsItemIdThumbnailGet({ path, throwOnError: true })).data;
const deleted = await api.deleteV1ItemsItemIdDelete({ path, throwOnError: true });
const left = (await api.pageV1ItemsGet({ throwOnError: true })).data;

const result = {
  camera: enrolled.camera,
  label: changed.label,
  matches: answer.matches.map((match) => [match.item_id === enrolled.item_id, match.label]),
  listed: listed.items.map((item) => item.item_id === enrolled.item_id),
  thumbnail: Buffer.from(await thumbnail.arrayBuffer()).subarray(0, 2).toString("hex"),
  deleted: deleted.response.status,
  left: left.items.length,
};
console.log(JSON.stringify(result));
