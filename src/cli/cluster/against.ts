/** Virtual clusters beside real ranks. */
import type { ClusterFlags } from './cluster-flags.ts';

export async function compareWithBench(_files: readonly string[], _flags: ClusterFlags): Promise<void> {}
