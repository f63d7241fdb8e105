/** `routed-experts placement`: where experts and their replicas go, by DeepSeek's EPLB. */

import { writeFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import type { MapForm } from '../../analysis/placement/map-files.ts';
import { mapForms, readMap, writeMap } from '../../analysis/placement/map-files.ts';
import type { PlacementPlan } from '../../analysis/placement/plan.ts';
import { planPlacement } from '../../analysis/placement/plan.ts';
import { greatest, mean } from '../../analysis/statistics.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';
import { badFile, readText } from '../../rows/files/file-kind.ts';
import { finite, whole } from '../options.ts';
import { readLoads } from './loads-file.ts';

type Flags = Readonly<{
  replicas: number;
  groups: number;
  nodes: number;
  gpus: number;
  old?: string;
  expertMb?: number;
  form?: MapForm;
  firstLayer: number;
  out?: string;
  json?: boolean;
}>;

export function placementCommand(): Command {
  return new Command('placement')
    .description("Place experts and their replicas on GPUs by DeepSeek's EPLB")
    .argument('<loads>', 'JSON file: {"weight": [layers][experts]}')
    .requiredOption('--replicas <n>', 'slots of a layer, a multiple of the GPUs', whole(1, 1_000_000))
    .requiredOption('--gpus <n>', 'GPUs, a multiple of the nodes', whole(1, 1_000_000))
    .option('--groups <n>', 'groups of experts; a multiple of the nodes keeps each group on one node', whole(1), 1)
    .option('--nodes <n>', 'nodes', whole(1), 1)
    .option('--old <file>', 'the map in use, in any form; default: slot i holds expert i mod E')
    .option('--expert-mb <n>', "size of an expert's weights in a layer, MB: says what moving costs", finite(0))
    .addOption(new Option('--form <form>', 'write a map file for an engine').choices(mapForms))
    .option('--first-layer <n>', "number of the model's first layer with experts, for map files", whole(0, 10_000), 0)
    .option('--out <file>', 'write the map to this file, not to standard output')
    .option('--json', 'print {physicalToLogical, logicalToPhysical, logicalCount, gpuLoads, …}')
    .addHelpText('after', '\nExit code: 0 ok, 2 bad usage or loads that cannot be read.')
    .action(place);
}

function place(file: string, flags: Flags): void {
  if (flags.out !== undefined && flags.form === undefined) {
    throw RoutedExpertsError.of('BAD_VALUE', '--form', 'missing', `one of ${mapForms.join(', ')} beside --out`);
  }
  const weight = readLoads(file);
  const shape = {
    numReplicas: flags.replicas,
    numGroups: flags.groups,
    numNodes: flags.nodes,
    numGpus: flags.gpus,
  };
  const plan = planPlacement(weight, shape, flags.old === undefined ? null : oldMap(flags.old, weight.length, flags));
  const map = flags.form === undefined ? null : mapText(flags.form, plan, flags);
  if (map !== null && flags.out !== undefined) write(flags.out, map);
  else if (map !== null) process.stdout.write(map);
  if (flags.json === true && (map === null || flags.out !== undefined)) {
    process.stdout.write(`${JSON.stringify(jsonOf(plan))}\n`);
  } else if (map === null || flags.out !== undefined) {
    process.stdout.write(`${textOf(plan, flags).join('\n')}\n`);
  }
}

/** A map of one line stands for all layers. @throws BAD_FILE for a map of another shape */
function oldMap(file: string, numLayers: number, { replicas }: Flags): readonly (readonly number[])[] {
  const { physicalToLogical: lines } = readMap(readText(file), file);
  const all = lines.length === 1 ? Array.from({ length: numLayers }, () => lines[0]!) : lines;
  const found = `${all.length} layers of ${all[0]!.length} slots`;
  if (all.length === numLayers && all[0]!.length === replicas) return all;
  throw RoutedExpertsError.of('BAD_FILE', file, `${found}, not ${numLayers} of ${replicas}`);
}

function mapText(form: MapForm, plan: PlacementPlan, { firstLayer, gpus }: Flags): string {
  const physicalToLogical = plan.maps.physicalToLogical.map((slots) => [...slots]);
  const layers = physicalToLogical.map((_, l) => firstLayer + l);
  const numExperts = plan.maps.logicalCount[0]!.length;
  // SGLang wants a line for every layer of the model. What it says of a dense layer is not used.
  const dense = Array.from({ length: form === 'sglang' ? firstLayer : 0 }, () =>
    physicalToLogical[0]!.map((_, slot) => slot % numExperts),
  );
  return writeMap(form, { layers, physicalToLogical: [...dense, ...physicalToLogical], numGpus: gpus });
}

function jsonOf({ maps, gpuLoads, ...plan }: PlacementPlan): unknown {
  const mostReplicas = greatest(maps.logicalCount.map(greatest));
  return {
    physicalToLogical: maps.physicalToLogical.map((slots) => [...slots]),
    logicalToPhysical: maps.logicalToPhysical.map((experts) =>
      experts.map((slots) => [...slots, ...Array.from({ length: mostReplicas - slots.length }, () => -1)]),
    ),
    logicalCount: maps.logicalCount.map((counts) => [...counts]),
    gpuLoads: gpuLoads.map((loads) => [...loads]),
    maxOverMean: plan.maxOverMean,
    linearMaxOverMean: plan.linearMaxOverMean,
    gpusWithDuplicates: plan.gpusWithDuplicates,
    slotsChanged: plan.slotsChanged,
  };
}

function spread(values: readonly (number | null)[]): string {
  const defined = values.filter((value) => value !== null);
  if (defined.length === 0) return 'no load';
  return `${mean(defined)!.toFixed(3)} on average, ${greatest(defined).toFixed(3)} in the worst layer`;
}

function textOf(plan: PlacementPlan, { expertMb, old }: Flags): string[] {
  const numSlots = plan.maps.physicalToLogical.reduce((sum, slots) => sum + slots.length, 0);
  const moved = `${plan.slotsChanged} of ${numSlots} slots`;
  const cost = expertMb === undefined ? '' : `, ${((plan.slotsChanged * expertMb) / 1000).toFixed(1)} GB of weights`;
  return [
    `busiest GPU over mean, linear without replicas: ${spread(plan.linearMaxOverMean)}`,
    `busiest GPU over mean, placed:                  ${spread(plan.maxOverMean)}`,
    `GPUs that hold an expert twice, over all layers: ${plan.gpusWithDuplicates} (each a wasted slot)`,
    `moving there from ${old ?? 'slot i = expert i mod E'}: ${moved}${cost}`,
    'The loads were fitted to themselves: inspect FILE --ep N --redundant R says what it would have gained.',
  ];
}

function write(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    throw badFile(path, error);
  }
}
