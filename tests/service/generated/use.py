"""What a Python client that openapi-python-client generated as `generated` is used for; prints what came of it."""

import io
import json
import sys

from generated import AuthenticatedClient
from generated.api.items import (
    delete_v1_items_item_id_delete,
    edit_v1_items_item_id_patch,
    enrol_v1_items_post,
    page_v1_items_get,
)
from generated.api.pictures import thumbnail_v1_items_item_id_thumbnail_get
from generated.api.query import query_v1_query_post
from generated.models import EnrolForm, ItemChanges, QueryForm
from generated.types import File

address, key, photo = sys.argv[1:]
client = AuthenticatedClient(base_url=address, token=key, raise_on_unexpected_status=True)


def file():
    return File(io.BytesIO(open(photo, "rb").read()), "photo.png", "image/png")


form = EnrolForm(images=[file()], metadata=json.dumps([{"camera": "gate"}]))
enrolled = enrol_v1_items_post.sync(client=client, body=form).results[0].item
changes = ItemChanges.from_dict({"label": "ada"})
changed = edit_v1_items_item_id_patch.sync(enrolled.item_id, client=client, body=changes)
answer = query_v1_query_post.sync(client=client, body=QueryForm(image=[file()], cameras=["gate"], top_k=3))
listed = page_v1_items_get.sync(client=client, labels=["ada"])
thumbnail = thumbnail_v1_items_item_id_thumbnail_get.sync(enrolled.item_id, client=client)
deleted = delete_v1_items_item_id_delete.sync_detailed(enrolled.item_id, client=client)
left = page_v1_items_get.sync(client=client)
told = {
    "camera": enrolled.camera,
    "label": changed.label,
    "matches": [[match.item_id == enrolled.item_id, match.label] for match in answer.matches],
    "listed": [item.item_id == enrolled.item_id for item in listed.items],
    "thumbnail": thumbnail.payload.read()[:2].hex(),
    "deleted": int(deleted.status_code),
    "left": len(left.items),
}
sys.stdout.write(json.dumps(told))
