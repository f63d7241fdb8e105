/** Thread entry of `cluster`: one cluster a task. */

import { runCell, type ClusterFigures } from './cluster-figures.ts';
import type { ClusterCell } from './cluster-cell.ts';

export default function runTask(cell: ClusterCell): ClusterFigures {
  return runCell(cell);
}
