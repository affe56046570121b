"""What needs Airflow's classes: tasks, questions to people, the watch."""
