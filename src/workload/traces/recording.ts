/**
 * Recordings of routed experts (`granite-routing.json`): the tokens and rows of real requests, for replay.
 *
 *     { "source": …, "model": { "name", "layers", "experts", "topK" },
 *       "requests": [ { "id", "promptTokenIds", "outputTokenIds", "rowCount", "rows" } ] }
 *
 * `rows` is base64 of `[rowCount, layers, topK]` ids: one byte each for up to 256 experts, else two, little-endian.
 * Fields that replay does not need are ignored.
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RecordedRequest, RecordedRouting } from '../../contract/recorded-routing.ts';
import { show } from '../checks.ts';
import type { Workload } from '../workload.ts';

type Fields = Readonly<Record<string, unknown>>;

/** @throws BAD_FILE, with the request and the field, for a recording that is not whole */
export function parseRecording(file: string, name: string, content: string): RecordedRouting {
  const fail = (problem: string): never => {
    throw RoutedExpertsError.of('BAD_FILE', file, problem);
  };
  const fieldsOf = (value: unknown, what: string): Fields =>
    typeof value === 'object' && value !== null ? (value as Fields) : fail(`${what} is ${shown(value)}, not an object`);
  const size = (fields: Fields, field: string): number => {
    const value = fields[field];
    return Number.isInteger(value) && (value as number) > 0
      ? (value as number)
      : fail(`${field} is ${shown(value)}, not a whole number ≥ 1`);
  };
  const tokens = (fields: Fields, field: string, what: string): Uint32Array => {
    const value = fields[field];
    const isTokens =
      Array.isArray(value) && value.length > 0 && value.every((id) => Number.isInteger(id) && id >= 0 && id < 2 ** 31);
    return isTokens ? Uint32Array.from(value) : fail(`${what}: ${field} is not a list of token ids`);
  };

  const root = fieldsOf(parseJson(content, fail), 'the file');
  const model = fieldsOf(root['model'], 'model');
  const shape = { numLayers: size(model, 'layers'), numExperts: size(model, 'experts'), topK: size(model, 'topK') };
  if (!Array.isArray(root['requests']) || root['requests'].length === 0) fail('requests is not a list of requests');
  const requests = (root['requests'] as unknown[]).map((value, i): RecordedRequest => {
    const fields = fieldsOf(value, `request ${i}`);
    const { id } = fields;
    if (typeof id !== 'string') fail(`request ${i}: id is ${shown(id)}, not a text`);
    const what = `request "${id as string}"`;
    const promptTokenIds = tokens(fields, 'promptTokenIds', what);
    const outputTokenIds = tokens(fields, 'outputTokenIds', what);
    const numRows = promptTokenIds.length + outputTokenIds.length - 1;
    const bytes = decodeBase64(fields['rows']) ?? fail(`${what}: rows is not base64`);
    const rows = shape.numExperts <= 256 ? bytes : new Uint16Array(bytes.buffer, 0, bytes.length >> 1);
    const numIds = numRows * shape.numLayers * shape.topK;
    if (rows.length !== numIds) fail(`${what}: rows has ${rows.length} ids, ${numRows} rows are ${numIds}`);
    const wrong = rows.findIndex((expert) => expert >= shape.numExperts);
    if (wrong >= 0) fail(`${what}: expert ${rows[wrong]} of ${shape.numExperts}`);
    return { requestId: id as string, promptTokenIds, outputTokenIds, rows };
  });
  if (new Set(requests.map(({ requestId }) => requestId)).size < requests.length) fail('two requests have one id');
  return { name, ...shape, requests };
}

/** The recorded requests, all there from the start. */
export function recordingWorkload(recording: RecordedRouting): Workload {
  return {
    name: recording.name,
    minConcurrency: 1,
    requests: recording.requests.map(({ requestId, promptTokenIds, outputTokenIds }) => ({
      requestId,
      promptTokenIds,
      maxTokens: outputTokenIds.length,
      priority: 0,
      arrivalMs: 0,
      cacheSalt: null,
    })),
  };
}

const shown = (value: unknown): string => (value === undefined ? 'missing' : show(value));

function parseJson(content: string, fail: (problem: string) => never): unknown {
  try {
    return JSON.parse(content);
  } catch {
    return fail(`not JSON: ${show(content.slice(0, 60))}`);
  }
}

function decodeBase64(value: unknown): Uint8Array<ArrayBuffer> | null {
  if (typeof value !== 'string') return null;
  try {
    return Uint8Array.from(atob(value), (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}
