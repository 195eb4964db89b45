/** Subjects: photos of somebody who is searched for, which the service keeps for a while. */

import { json, request, send } from "../http.js";

const pathOf = (subjectId, part = "") => `/v1/subjects/${encodeURIComponent(subjectId)}${part}`;

/**
 * Have photos of one subject kept.
 * @param {File[]} files
 * @param {{signal?: AbortSignal, progress?: (share: number) => void}} options `progress` is told what share is sent
 */
export async function keepSubject(files, options = {}) {
  const body = new FormData();
  for (const file of files) body.append("image", file, file.name);
  return (await send("/v1/subjects", body, options)).json();
}

export const getSubject = (subjectId) => json("GET", pathOf(subjectId));

/** Enrol its photos, with what is said of them all; gives a result for each. */
export const enrolSubject = (subjectId, said) => json("POST", pathOf(subjectId, "/items"), { body: said });

/** Each photo as a file, for routes that take files. */
export async function filesOfSubject(subject) {
  const fetched = subject.photos.map(async ({ index, filename }) => {
    const response = await request("GET", pathOf(subject.subject_id, `/photos/${index}`));
    return new File([await response.blob()], filename);
  });
  return Promise.all(fetched);
}
