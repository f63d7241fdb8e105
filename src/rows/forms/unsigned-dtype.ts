/** The element type of the forms that know no negative numbers. */

import type { RoutedRows } from '../../contract/routed-rows.ts';

/**
 * The narrowest type that holds every expert id and, if rows are missing, a value that no expert has: what stands in a
 * missing row's place must not pass for a routing (L4). With 256 experts a byte has no such value.
 */
export function unsignedDtype(
  rows: RoutedRows,
  numExperts: number,
): Readonly<{ dtype: 'uint8' | 'uint16'; fill: number }> {
  const numValues = numExperts + (rows.missing.length > 0 ? 1 : 0);
  return numValues <= 256 ? { dtype: 'uint8', fill: 0xff } : { dtype: 'uint16', fill: 0xffff };
}
