/** The rows of a choice in its answer: which of them, in which form, and what is said of those that are missing. */

import type { WithLayers } from '../../capture/row-layers.ts';
import { countPositions } from '../../capture/routed-rows.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { PositionRange, RoutedRows } from '../../contract/routed-rows.ts';
import { compressZstd } from '../../rows/files/zstd.ts';
import type { JsonObject } from '../../rows/json-object.ts';
import type { JsonParts } from '../../rows/json-parts.ts';
import type { PackOptions } from '../../rows/packed/write-packed.ts';
import { choiceWithRows, flatMembers } from '../../rows/row-formats.ts';
import type { GenerationJob, RowsWanted } from '../body/generation-job.ts';
import { HttpError } from '../http-error.ts';
import type { Metrics } from '../metrics.ts';
import type { Choice, Generation } from './generation.ts';
import { sharedPrefix } from './shared-prefix.ts';

export type RowsContext = Readonly<{
  job: GenerationJob;
  generation: Generation;
  numExperts: number;
  /** Gives rows the axis of layers that the server was started with. */
  withLayers: WithLayers;
  metrics: Metrics;
}>;

/** Returns the rows of a choice that has ended, or `null` if its answer has none. Throws ROWS_MISSING. */
export function rowsToShow({ job, withLayers }: RowsContext, choice: Choice): RoutedRows | null {
  if (choice.rows === null || job.rows === null) return null;
  if (job.transfer?.kind === 'keep' && !job.transfer.returnsRows) return null;
  const rows = rowsFrom(withLayers(choice.rows), job.sampling.routedExpertsPromptStart);
  if (rows.missing.length === 0 || job.rows.missing === 'said') return rows;
  if (choice.finishReason === 'abort') return null;
  if (job.rows.missing === 'said-unless-aborted') return rows;
  throw HttpError.from(RoutedExpertsError.of('ROWS_MISSING', job.rows.format, rows.missing));
}

/** A choice's object with its rows; with `null` in their place if they were wanted and the choice was aborted. */
export function withRows(context: RowsContext, object: JsonObject, choice: Choice): JsonObject {
  const { job, numExperts, metrics } = context;
  if (job.rows === null || choice.rows === null) return object;
  const { format } = job.rows;
  const rows = rowsToShow(context, choice);
  if (rows === null) {
    return choice.finishReason === 'abort' ? choiceWithRows(object, format, [['routed_experts', ['null']]]) : object;
  }
  metrics.rowsSent(rows.count, countPositions(rows.missing));
  const members = flatMembers(format, rows, numExperts, packingOf(context, choice, rows));
  return choiceWithRows(object, format, countedMembers(members, metrics));
}

/** How rows are packed: compressed if asked for, and without the beginning that the client has. */
export function packingOf(
  { job, generation, withLayers }: RowsContext,
  choice: Choice,
  rows: RoutedRows,
): Omit<PackOptions, 'numExperts'> {
  const { format, isCompressed, known } = job.rows as RowsWanted;
  if (format !== 'packed') return {};
  return {
    compress: isCompressed ? compressZstd : undefined,
    prefix: sharedPrefix({ choice, rows, known, choices: generation.choices, withLayers }),
  };
}

function* countedMembers(
  members: Iterable<readonly [string, JsonParts]>,
  metrics: Metrics,
): Generator<readonly [string, JsonParts]> {
  for (const [key, parts] of members) yield [key, counted(parts, metrics)];
}

export function* counted(parts: JsonParts, metrics: Metrics): Generator<string> {
  for (const part of parts) {
    metrics.rowBytesSent(part.length);
    yield part;
  }
}

/** Without those before `start`. */
function rowsFrom(rows: RoutedRows, start: number): RoutedRows {
  if (start <= rows.start) return rows;
  const end = rows.start + rows.count;
  const missing = rows.missing.flatMap(([from, to]): PositionRange[] =>
    to > start ? [[Math.max(from, start), to]] : [],
  );
  return { ...rows, chunkOrigin: rows.chunkOrigin ?? 0, start, count: Math.max(0, end - start), missing };
}
