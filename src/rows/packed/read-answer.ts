/**
 * Reads an answer of `Accept: application/octet-stream`:
 *
 *     offset  bytes
 *          0      4  "rxa1"
 *          4      4  n, the length of the JSON text (u32, little-endian)
 *          8      n  the answer as JSON; a choice with rows has `routed_experts: {"part": i}`
 *      8 + n         the packed rows of each part, one behind the other
 */

import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RoutedRows } from '../../contract/routed-rows.ts';
import { isObject } from '../json-object.ts';
import { decodePacked, type ReadPackedOptions } from './read-packed.ts';

const MAGIC = 0x31_61_78_72;

/** `rows`: of each part, by its number. Answers of SGLang's dialect may be lists. */
export type PackedAnswer = Readonly<{ answer: unknown; rows: readonly RoutedRows[] }>;

/**
 * `known`: the rows that the request said the client has.
 *
 * @throws BAD_ROWS for what is not such an answer, or breaks off
 */
export function readPackedAnswer(
  bytes: Uint8Array,
  { decompress, known }: Pick<ReadPackedOptions, 'decompress'> & Readonly<{ known?: RoutedRows }> = {},
): PackedAnswer {
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < 8 || view.getUint32(0, true) !== MAGIC) throw new Error('it is no "rxa1"');
    let at = 8 + view.getUint32(4, true);
    if (at > bytes.length) throw new Error('it breaks off');
    const answer: unknown = JSON.parse(new TextDecoder().decode(bytes.subarray(8, at)));
    const rows: RoutedRows[] = [];
    const rowsOfChoice = (choice: number | null): RoutedRows => {
      const found = choice === null ? known : rows[partOf(answer, choice)];
      if (found !== undefined) return found;
      throw new Error(
        choice === null ? 'it builds on rows that the client has: give known' : 'its choices are mixed up',
      );
    };
    while (at < bytes.length) {
      const options = decompress === undefined ? { rowsOfChoice } : { rowsOfChoice, decompress };
      const part = decodePacked(bytes.subarray(at), options);
      rows.push(part.rows);
      at += part.numBytes;
    }
    return { answer, rows };
  } catch (error) {
    throw RoutedExpertsError.of('BAD_ROWS', 'rxa1', (error as Error).message);
  }
}

function partOf(answer: unknown, choice: number): number {
  const choices = isObject(answer) ? answer['choices'] : answer;
  const found: unknown = Array.isArray(choices) ? choices[choice] : choices;
  const place = isObject(found) ? found['routed_experts'] : undefined;
  return isObject(place) ? Number(place['part']) : -1;
}
