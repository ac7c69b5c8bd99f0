"""What people see and order of jobs that run: counts, tables, the dead, and a ping."""
