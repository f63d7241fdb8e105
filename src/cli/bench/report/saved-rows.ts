/** Rows of a bench as files (`--save-rows`): of the first run of each cell, since the others serve the same. */

import { RowsFiles } from '../../../rows/files/rows-files.ts';
import type { ServedRun } from '../bench-run.ts';
import { cellName } from '../plan.ts';

export function rowsFilesOf(directory: string): RowsFiles {
  return new RowsFiles({ directory, name: `bench-${process.pid}` });
}

/** Requests are named by their cell too. Rejects with BAD_FILE. */
export async function saveRun(files: RowsFiles, { planned, served }: ServedRun): Promise<void> {
  for (const { requestId, promptTokenIds, outputTokenIds, finishReason, rows, steps } of served.requests) {
    if (rows === null || finishReason === null) continue;
    await files.add({
      requestId: `${cellName(planned.cell)}: ${requestId}`,
      tokenIds: [...promptTokenIds, ...outputTokenIds],
      numPromptTokens: promptTokenIds.length,
      rows,
      finishReason,
      weightVersion: 'default',
      steps: steps ?? [],
    });
  }
}
