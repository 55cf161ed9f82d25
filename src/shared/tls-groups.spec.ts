import { expect, it } from '@jest/globals';
import { onlyHybrid } from './tls-groups.ts';

it.each<[string[], boolean]>([
  [['X25519MLKEM768'], true], [['X25519MLKEM768', 'SecP256r1MLKEM768', 'SecP384r1MLKEM1024'], true],
  [[], false], // OpenSSL's own choice has others
  [['X25519MLKEM768', 'X25519'], false], [['X25519', 'X25519MLKEM768'], false], [['X25519'], false], [['P-256', 'P-384'], false], [['prime256v1'], false],
  [['x25519mlkem768'], false], [['X25519MLKEM768 '], false], [[''], false], [['MLKEM768'], false], [['X25519MLKEM7'], false],
])('of the groups %j it is %p that all are hybrid', (groups, expected) => {
  expect(onlyHybrid(groups)).toBe(expected);
});
