"""The web interface: dashboard, patients, overlays, API. It reads; it writes only what `actions` lists.

app         what is served, and where: `create_app`
site        what every handler works with: `Here`; how a page is rendered: `render`
accounts    the file of users and tokens
sessions    who is signed in, and who fails to be too often
signin      who asks: `Viewer`, `Operator`, `Monitor`; the pages to sign in and out
security    what holds for every request and answer: host, origin, headers
faults      what an error looks like, as a page and as JSON
pages       the dashboard
patients    patients and their volumes over time; plot lays the drawing out
viewer      all slices of a series with what was found; overlay reads them
actions     requeue, retry, mark invalid, restore
advice      what to do about what went wrong
health      /health
metrics     /metrics
api         /api/v1
server      uvicorn, until the node stops

A page module has an `APIRouter` named `router`, which `app.create_app` includes for viewers, so that nobody who is not
signed in gets to it. A handler is a plain `def`, which runs in a thread:

    @router.get("/jobs/{job_id}")
    def show_job(request: Request, here: Here, viewer: Viewer, job_id: int) -> Response:
        with here.database.read() as connection:
            job = queue.job(connection, job_id)
        here.saw(viewer, [job_id])
        return render(request, "job.html", viewer, job=job)

- The database: `here.database.read()` or `.begin()`, in the handler, so that a write is committed before its answer.
- Who asks: `Viewer` lets everybody in who may look, `Operator` who may act. Name it in every handler of a page.
- What a person did: `by: Signature` is the name of the person who sends a form, for the timeline. Where the site has no
  users, the form has a field `by`: `{% include "signature.html" %}`.
- A form is `<form method="post">`. `security.Guard` refuses those of other sites, so that it needs no hidden token.
- Patients: call `here.saw` wherever a name, an ID or an image is shown; it writes the audit trail.
- Errors: raise Unknown (404), IllegalMove or Refused (409), Unavailable (503); `faults` makes the page or the JSON.
- A template extends `base.html`, fills the blocks `title` and `main`, and has no script, style or handler inline: the
  Content-Security-Policy forbids them. What carries `data-live` and an id is fetched again every few seconds.
"""
