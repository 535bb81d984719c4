"""The page `/loco/` and the typed JSON behind it, over the journal.

| route | answer |
|---|---|
| `GET /loco/`, `GET /loco/static/{path}` | the page and its files; `/loco` leads there |
| `GET /loco/page/changes` | `Changes`: a mark per panel; with `If-None-Match` 304 while nothing changed |
| `GET /loco/page/summary` | `Summary`: who looks, how far the project is, how much is left, what retraining waits for |
| `GET /loco/page/learning` | `Learning`: Dice by version on the same validation cases, and the training |
| `GET /loco/page/queue?offset&limit&sort&descending&search&state&stratum` | `QueuePage`: what comes next and why |
| `GET /loco/page/thumbnail?image&layer&v` | a picture, 202 with `Retry-After` while it is drawn, 204 when the layer is empty |
| `POST /loco/page/pin`, `POST /loco/page/unpin` | `Pin`: serve an image before all others, or no longer |
| `GET /loco/page/submissions?offset&limit&search` | `SubmissionsPage`: what came back, pre-label against label |
| `GET /loco/page/worst?limit` | `WorstCases`: validation cases where the live model is worst |
| `GET /loco/page/models` | `Models`: the versions |
| `POST /loco/page/models/{version}/live` | `ModelVersion`: that version serves from now on |
| `POST /loco/page/models/{version}/bundle` | 202 `Bundle`: its MONAI bundle is made in the background |
| `GET /loco/page/models/{version}/bundle` | `Bundle`: how far that is |
| `GET /loco/page/models/{version}/bundle.zip` | the file |

Skipping is `POST /loco/skip`, the history of a label `GET /loco/labels`, a training `POST /train/{model}` and `DELETE /train/`.
Reading asks for the role user, writing for annotator, models for admin, when the login is on.
"""
