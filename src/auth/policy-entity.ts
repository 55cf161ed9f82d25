import { Column, CreateDateColumn, Entity, PrimaryColumn, UpdateDateColumn } from 'typeorm';
import type { Rule } from './policy.ts';

/** Rules that an admin wrote, of one tenant or, without one, for all of them. */
@Entity('policies')
export class PolicyEntity {
  @PrimaryColumn('uuid')
  id: string;

  @Column('text', { name: 'tenant_id', nullable: true })
  tenantId: string | null;

  @Column('text')
  name: string;

  @Column('text')
  status: 'enforced' | 'shadow';

  @Column('json')
  rules: Rule[];

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt: Date;

  @UpdateDateColumn({ name: 'updated_at', type: 'timestamptz' })
  updatedAt: Date;
}
