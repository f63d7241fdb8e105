/** Rows in a column of nested lists of a Parquet file, a row group at a time. */

import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib';
import type { AsyncBuffer, Compressors, FileMetaData } from 'hyparquet';
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet';
import { RoutedExpertsError } from '../../contract/errors.ts';
import type { RowBatch, RowSource } from '../row-batch.ts';
import { badFile } from './file-kind.ts';
import type { ReadRowsHints } from './rows-hints.ts';

/** What hyparquet does not know of itself. */
const compressors: Compressors = {
  GZIP: (input) => gunzipSync(input),
  BROTLI: (input) => brotliDecompressSync(input),
  ZSTD: (input) => zstdDecompressSync(input),
};

/** Columns that hold rows go by these names, unless the caller names another. */
const COLUMNS = ['routed_experts', 'topk_ids', 'expert_ids', 'rows'];

/** Lines of the file that are read at once. A line may be a request of thousands of rows. */
const LINES_AT_ONCE = 1024;

type Nested = readonly unknown[];

/** A line holds `[T, L, K]`, a request's rows; or `[L, K]`, one row, and then requests are unknown. */
export async function parquetRows(path: string, hints: ReadRowsHints): Promise<RowSource> {
  const fail = (problem: string): never => {
    throw RoutedExpertsError.of('BAD_FILE', path, problem);
  };
  const file: AsyncBuffer = await asyncBufferFromFile(path);
  const metadata = await parquetMetadataAsync(file).catch((error: unknown) => {
    throw badFile(path, error);
  });
  const column = columnOf(metadata, hints) ?? fail(`has no column ${COLUMNS.join(', ')}; name one with --column`);
  const first = (await linesOf(path, file, metadata, column, 0, 1))[0] ?? fail('has no lines');
  const depth = depthOf(first);
  if (depth < 2 || depth > 3) fail(`column ${column} holds lists ${depth} deep, rows are [T, L, K] or [L, K]`);
  const row = (depth === 3 ? (first as Nested)[0] : first) as Nested;
  const [numLayers, topK] = [row.length, (row[0] as Nested).length];
  return {
    form: `parquet, column ${column}`,
    shape: { layers: null, numLayers, topK, numExperts: hints.numExperts ?? null },
    knows: { requests: depth === 3, promptLengths: false, steps: false, tokens: false },
    async *batches() {
      const numLines = Number(metadata.num_rows);
      for (let line = 0; line < numLines; line += LINES_AT_ONCE) {
        const lines = await linesOf(path, file, metadata, column, line, Math.min(numLines, line + LINES_AT_ONCE));
        const parts = depth === 3 ? lines : [lines];
        for (const [i, part] of parts.entries()) {
          const at = depth === 3 ? line + i : line;
          yield batchOf(part as Nested, { path, line: at, isRequest: depth === 3, numLayers, topK });
        }
      }
    },
  };
}

type Part = Readonly<{ path: string; line: number; isRequest: boolean; numLayers: number; topK: number }>;

function batchOf(rows: Nested, { path, line, isRequest, numLayers, topK }: Part): RowBatch {
  const width = numLayers * topK;
  const ids = new Int32Array(rows.length * width);
  const placeOf = (entry: number): string => {
    const row = Math.floor(entry / width);
    return isRequest ? `line ${line}, row ${row}` : `line ${line + row}`;
  };
  for (const [r, row] of rows.entries()) {
    const flat = Array.isArray(row) ? row.flat() : [];
    if (flat.length !== width) {
      const problem = `mixes shapes: ${placeOf(r * width)} has ${flat.length} ids, the first ${numLayers} × ${topK}`;
      throw RoutedExpertsError.of('BAD_FILE', path, problem);
    }
    for (const [i, id] of flat.entries()) {
      const number = Number(id);
      if (!Number.isSafeInteger(number) || id === null || number < -1 || number > 0x7fff_ffff) {
        throw RoutedExpertsError.of('BAD_FILE', path, `${placeOf(r * width)}: ${String(id)} is no expert id`);
      }
      ids[r * width + i] = number;
    }
  }
  return { ids, numRows: rows.length, startsRequest: isRequest || line === 0, endsStep: false, placeOf };
}

function columnOf({ schema }: FileMetaData, { column }: ReadRowsHints): string | null {
  const names = schema.map(({ name }) => name);
  return (column === undefined ? COLUMNS : [column]).find((name) => names.includes(name)) ?? null;
}

async function linesOf(
  path: string,
  file: AsyncBuffer,
  metadata: FileMetaData,
  column: string,
  rowStart: number,
  rowEnd: number,
): Promise<unknown[]> {
  try {
    const lines = await parquetReadObjects({ file, metadata, columns: [column], rowStart, rowEnd, compressors });
    return lines.map((line): unknown => line[column]);
  } catch (error) {
    const problem = `lines ${rowStart} to ${rowEnd - 1} cannot be read: ${(error as Error).message}`;
    throw RoutedExpertsError.of('BAD_FILE', path, problem);
  }
}

function depthOf(value: unknown): number {
  return Array.isArray(value) ? 1 + depthOf(value[0]) : 0;
}
