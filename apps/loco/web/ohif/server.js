// What the panel asks of the server. Every failure is an Error whose message is a sentence for people.

async function answerOf(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: 'same-origin', ...options });
  } catch {
    throw new Error('The server does not answer; look whether it runs.');
  }
  if (answer.ok) {
    return answer;
  }
  let detail = '';
  try {
    detail = (await answer.json()).detail;
  } catch {
    // no JSON: the status says what is known
  }
  throw new Error(typeof detail === 'string' && detail ? detail : `The server answered ${answer.status} to ${path}.`);
}

const asJson = body => ({
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify(body),
});

function form(params, files = {}) {
  const data = new FormData();
  data.append('params', JSON.stringify(params));
  for (const [name, file] of Object.entries(files)) {
    data.append(name, file, file.name);
  }
  return data;
}

export async function info() {
  return (await answerOf('/info/')).json();
}

// The image that a series (or one picture of it) is to the server: { image }.
export async function imageOf(series, instance) {
  const query = new URLSearchParams({ series, instance });
  return (await answerOf(`/loco/viewer/image?${query}`)).json();
}

// Series by which a study of pictures must be opened because of a SEG beside them: { series }, empty when it need not.
export async function picturesOf(study) {
  return (await answerOf(`/loco/viewer/pictures?${new URLSearchParams({ study })}`)).json();
}

// The mask of the live model as NRRD. Whoever asks goes on holding the image, and their label is known to start from it.
export async function infer(model, image, client) {
  const wishes = { result_extension: '.nrrd', result_dtype: 'uint8', result_compress: false, client_id: client };
  const query = new URLSearchParams({ image, output: 'image' });
  const answer = await answerOf(`/infer/${encodeURIComponent(model)}?${query}`, { method: 'POST', body: form(wishes) });
  return answer.arrayBuffer();
}

export async function submit(image, file, labels, client) {
  const params = {
    label_info: Object.entries(labels).map(([name, idx]) => ({ name, idx })),
    client_id: client,
  };
  const query = new URLSearchParams({ image });
  const options = { method: 'PUT', body: form(params, { label: file }) };
  return (await answerOf(`/datastore/label?${query}`, options)).json();
}

export async function next(strategy, client) {
  return (await answerOf(`/activelearning/${strategy}`, asJson({ client_id: client }))).json();
}

export async function skip(image, client, reason) {
  await answerOf('/loco/skip', asJson({ image, client_id: client, reason }));
}

// Why an image can be passed by: [{ reason, meaning }].
export async function skipReasons() {
  return (await (await answerOf('/loco/skip/reasons')).json()).reasons;
}

export async function train(model) {
  await answerOf(`/train/${encodeURIComponent(model)}`, asJson({}));
}

export async function stop() {
  await answerOf('/train/', { method: 'DELETE' });
}
