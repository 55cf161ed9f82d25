import { Column, CreateDateColumn, Entity, PrimaryColumn, UpdateDateColumn } from 'typeorm';
import type { DeploymentDefinition } from './deployment-definition.ts';

/** What the admin API stored of a deployment. */
@Entity('deployments')
export class StoredDeployment {
  @PrimaryColumn('text')
  id: string;

  @Column('jsonb')
  definition: DeploymentDefinition;

  @CreateDateColumn({ name: 'created_at', type: 'timestamptz' })
  createdAt: Date;

  @UpdateDateColumn({ name: 'updated_at', type: 'timestamptz' })
  updatedAt: Date;
}
